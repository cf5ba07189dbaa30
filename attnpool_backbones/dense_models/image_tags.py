"""Tags of an image: those it has by its annotations, and those that were predicted."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.nn import functional

__all__ = ['TAGS', 'annotations_of', 'make_tags', 'merge_tags', 'true_tags']

TAGS = 'pred_tags'
"""Field of a data sample with the predicted tags; :func:`make_tags` tells what it has."""
FLIPPED_AXES = {'horizontal': (2,), 'vertical': (1,), 'diagonal': (1, 2)}
"""Axes of K, h, w that a flip of the image reverses."""


def annotations_of(
    sample: BaseDataElement | Mapping[str, Any],
) -> tuple[Mapping[str, Any] | None, Tensor | None]:
    """Finds what is annotated in an image.

    Args:
        sample: A data sample of mmdet (``gt_instances`` with ``labels``) or mmseg (``gt_sem_seg``),
            or such a one as a dict.

    Returns:
        The instances, or None and the label map 1, H, W.

    Raises:
        KeyError: The sample has no annotations.
    """
    instances, label_map = sample.get('gt_instances'), sample.get('gt_sem_seg')
    if instances is not None and instances.get('labels') is not None:
        return instances, None
    if label_map is not None:
        return None, label_map.get('data')
    raise KeyError(
        'the image has neither gt_instances.labels nor gt_sem_seg, which tell its classes: the '
        "pipeline needs dict(type='LoadAnnotations', ...)"
    )


def true_tags(
    sample: BaseDataElement | Mapping[str, Any], num_classes: int, ignore_index: int = 255
) -> Tensor:
    """Reads from the annotations which classes an image has.

    Args:
        sample: As :func:`annotations_of` takes it.
        num_classes: Classes K.
        ignore_index: Label of pixels without a class.

    Returns:
        K: 1 where the image has the class, 0 where not, -1 where it has only instances of it that
        are to be ignored (crowds).

    Raises:
        KeyError: The sample has no annotations.
    """
    instances, label_map = annotations_of(sample)
    if instances is not None:
        labels = instances.get('labels').long()
        tags = labels.new_zeros(num_classes)
        ignored = sample.get('ignored_instances')
        if ignored is not None and ignored.get('labels') is not None:
            tags[ignored.get('labels').long()] = -1
        tags[labels] = 1
        return tags
    labels = label_map.flatten()
    if ignore_index < 0:  # cannot be counted
        labels = labels[labels != ignore_index]
    # ignored pixels are counted, too, which spares a copy of the others
    present = (labels.bincount(minlength=num_classes) > 0).long()
    if 0 <= ignore_index < len(present):
        present[ignore_index] = 0
    return present[:num_classes]


def make_tags(
    logits: Tensor, maps: Tensor, cell: Sequence[float], flip_direction: str | None = None
) -> BaseDataElement:
    """Packs what was predicted for one image.

    Args:
        logits: K.
        maps: K, h, w over the image as the model saw it.
        cell: Height and width of a position of the maps in pixels of the original image.
        flip_direction: How the image was flipped for the model. Default: None, not at all.

    Returns:
        ``scores`` K from 0 to 1, ``maps`` K, h, w over the original image from its upper left
        corner on, and ``cell``.
    """
    if flip_direction:
        maps = maps.flip(FLIPPED_AXES[flip_direction])
    return BaseDataElement(
        metainfo=dict(cell=tuple(cell)), scores=logits.float().sigmoid(), maps=maps
    )


def merge_tags(views: Sequence[BaseDataElement]) -> BaseDataElement:
    """Averages the tags of several views of one image.

    Args:
        views: Tags of each, as :func:`make_tags` packs them.

    Returns:
        Tags on the positions of the first view. In each class's map every view counts alike.
    """
    first = views[0]
    height, width = first.maps.shape[1:]
    total = torch.zeros_like(first.maps)
    strength = first.maps.abs().sum((1, 2), keepdim=True)  # K, 1, 1
    for view in views:
        # centres of the first view's positions, -1 to 1 over the other's map
        ys, xs = (
            (torch.arange(n, device=total.device) + 0.5) * cell / (size * own) * 2 - 1
            for n, cell, size, own in zip(
                (height, width), first.cell, view.maps.shape[1:], view.cell, strict=True
            )
        )
        grid = torch.stack(torch.meshgrid(ys, xs, indexing='ij')[::-1], -1)  # h, w, 2
        part = functional.grid_sample(
            view.maps[None].float(), grid[None].float(), padding_mode='border', align_corners=False
        )[0]  # K, h, w
        part = part * strength / part.abs().sum((1, 2), keepdim=True).clamp(min=1e-12)
        total += part.to(total.dtype) / len(views)
    scores = torch.stack([view.scores for view in views]).mean(0)
    return BaseDataElement(metainfo=dict(cell=first.cell), scores=scores, maps=total)


def covered(maps: Tensor, images: Sequence[int], inputs: Sequence[int]) -> tuple[int, int]:
    """Returns how many rows and columns of a map see a part of an image and not only padding.

    Args:
        maps: ..., h, w.
        images: Height and width of the image without padding, in pixels.
        inputs: Height and width of the whole input.
    """
    sizes = zip(maps.shape[-2:], images, inputs, strict=True)
    height, width = (min(n, -(-image * n // whole)) for n, image, whole in sizes)
    return height, width


def stitched(
    logits: Tensor, maps: Sequence[Tensor], corners: Sequence[tuple[int, int]],
    cell: Sequence[float], whole: Sequence[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Puts the tags of overlapping windows together to those of the image.

    An image has what any window has. A window's map counts by its evidence for the class.

    Args:
        logits: N, B, K of N windows.
        maps: N maps B, K, h, w.
        corners: Top and left of each window in pixels.
        cell: Height and width of a position of the maps in pixels.
        whole: Height and width of the image in pixels.

    Returns:
        Logits B, K and maps B, K, H, W, whose absolute values sum up to 1 over the positions.
    """
    height, width = maps[0].shape[-2:]
    rows = max(height, round(whole[0] / cell[0]))
    columns = max(width, round(whole[1] / cell[1]))
    canvas = maps[0].new_zeros(*logits.shape[1:], rows, columns)
    count = canvas.new_zeros(rows, columns)
    for evidence, part, (y, x) in zip(logits.sigmoid(), maps, corners, strict=True):
        top = min(round(y / cell[0]), rows - height)
        left = min(round(x / cell[1]), columns - width)
        place = ..., slice(top, top + height), slice(left, left + width)
        canvas[place] += evidence[..., None, None] * part
        count[place] += 1
    canvas = canvas / count.clamp(min=1)
    # parts of class activation maps are negative, and may outweigh the others
    total = canvas.abs().sum((-2, -1), keepdim=True)
    return logits.amax(0), canvas / torch.where(total == 0, 1, total)
