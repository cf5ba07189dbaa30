"""How well a model's class maps tell where the classes are."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torch.nn import functional

from attnpool_backbones.dense_models.image_tags import annotations_of, true_tags
from attnpool_backbones.evaluation.tag_metric import predicted_tags
from attnpool_backbones.registry import METRICS

__all__ = ['Localisation', 'LocalisationMetric', 'localise', 'overlaps', 'summary']

THRESHOLDS = 2.0 ** torch.arange(-10, 0, 0.5)
"""Of a map's maximum, 0.001 to 0.7: a softmax falls faster than class activation maps do."""


class Localisation(NamedTuple):
    """One class in one image that has it."""

    hit: float
    """1 if the map's peak is on an object of the class, else 0."""
    chance: float
    """Share of the positions that are."""
    overlaps: Tensor | None
    """IoU of the thresholded map with the objects' masks at each threshold; None without masks."""


def overlaps(values: Tensor, mask: Tensor) -> Tensor:
    """Returns the IoU of a mask with what of a map is above each of :data:`THRESHOLDS`.

    Args:
        values: Map H, W; what is below 0 counts as 0.
        mask: H, W, booleans.
    """
    values = values.clamp(min=0)
    level = torch.bucketize(values / values.max().clamp(min=1e-12), THRESHOLDS, right=True)
    above, inside = (
        part.bincount(minlength=len(THRESHOLDS) + 1).flip(0).cumsum(0).flip(0)[1:].double()
        for part in (level.flatten(), level[mask])
    )
    return inside / (above + mask.sum() - inside).clamp(min=1)


def localise(
    values: Tensor, cell: Sequence[float], boxes: Tensor | None, mask: Tensor | None
) -> Localisation:
    """Compares the map of a class with the objects of that class.

    Args:
        values: Map h, w.
        cell: Height and width of a position in pixels.
        boxes: n, 4: x1, y1, x2, y2 in pixels. Default: None, the mask alone counts.
        mask: H, W in pixels, booleans. Default: None, there is none.
    """
    height, width = values.shape
    ys, xs = ((torch.arange(n) + 0.5) * c for n, c in zip((height, width), cell, strict=True))
    if boxes is not None:
        rows = (ys[:, None] >= boxes[:, 1]) & (ys[:, None] <= boxes[:, 3])  # h, n
        columns = (xs[:, None] >= boxes[:, 0]) & (xs[:, None] <= boxes[:, 2])  # w, n
        inside = (rows[:, None] & columns[None]).any(-1)  # h, w
    else:
        bottom, right = (n - 1 for n in mask.shape)
        inside = mask[ys.long().clamp(max=bottom)][:, xs.long().clamp(max=right)]
    hit = float(inside.flatten()[int(values.argmax())])
    found = None
    if mask is not None:
        size = [int(np.ceil(n * c)) for n, c in zip((height, width), cell, strict=True)]
        fine = functional.interpolate(values[None, None], size, mode='bilinear')[0, 0]
        rows, columns = (min(a, b) for a, b in zip(size, mask.shape, strict=True))
        found = overlaps(fine[:rows, :columns], mask[:rows, :columns])
    return Localisation(hit, float(inside.float().mean()), found)


def summary(found: Sequence[Localisation]) -> dict[str, float]:
    """Returns the means in percent.

    Args:
        found: Of all images and classes.

    Returns:
        ``pointing``, ``pointing_chance``, and with masks ``mask_IoU`` at the one threshold that is
        best for all, and that ``threshold``.
    """
    metrics = dict(
        pointing=100 * float(np.mean([one.hit for one in found])),
        pointing_chance=100 * float(np.mean([one.chance for one in found])),
    )
    measured = [one.overlaps for one in found if one.overlaps is not None]
    if measured:
        mean = torch.stack(measured).mean(0)
        metrics['mask_IoU'] = 100 * float(mean.max())
        metrics['threshold'] = 100 * float(THRESHOLDS[mean.argmax()])
    return metrics


@METRICS.register_module()
class LocalisationMetric(BaseMetric):
    """The pointing game and the mask IoU of class maps, for classes that an image has, in percent.

    ``localisation/pointing``: how often the peak of the class's map is in a box of the class
    (arXiv 1608.00507, without tolerance), or on its pixels in segmentation;
    ``localisation/pointing_chance``: the same for a random position; ``localisation/mask_IoU``: of
    the map above a threshold with all masks of the class, as a mean over images and classes, at the
    threshold (``localisation/threshold``, in percent of the map's maximum) that is best for all.

    The test pipeline of mmdet has to load annotations after ``Resize``, as its own configs do.

    Args:
        ignore_index: Label of pixels without a class, for segmentation.
        exclude: Classes that do not count, e.g. the background of a segmentation.
        collect_device: Where results of several processes meet, ``'cpu'`` or ``'gpu'``.
        prefix: Of the names of the results. Default: ``'localisation'``.
    """

    default_prefix = 'localisation'

    def __init__(
        self,
        ignore_index: int = 255,
        exclude: Sequence[int] = (),
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index
        self.exclude = tuple(exclude)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Compares the maps of a batch with its annotations."""
        for sample in data_samples:
            tags = predicted_tags(sample)
            # one result an image: mmengine cuts what exceeds the length of the data set
            self.results.append(
                [
                    localise(tags['maps'][k].float().cpu(), tags['cell'], boxes, mask)
                    for k, boxes, mask in self.objects(sample, len(tags['maps']))
                ]
            )

    def objects(
        self, sample: Mapping[str, Any], num_classes: int
    ) -> list[tuple[int, Tensor | None, Tensor | None]]:
        """Returns class, boxes and mask of each class that an image has.

        Args:
            sample: With its annotations.
            num_classes: Classes K.

        Raises:
            KeyError: The sample has no annotations.
            ValueError: They are those of the resized image.
        """
        tags = true_tags(sample, num_classes, self.ignore_index)
        present = [k for k in (tags == 1).nonzero().flatten().tolist() if k not in self.exclude]
        instances, label_map = annotations_of(sample)
        if instances is None:
            label_map = label_map[0].cpu()
            return [(k, None, label_map == k) for k in present]
        labels = instances['labels'].cpu()
        boxes = instances['bboxes']
        boxes = getattr(boxes, 'tensor', boxes).cpu()
        masks = instances.get('masks')
        if masks is not None:
            masks = torch.from_numpy(masks.to_ndarray().astype(bool))
            original = sample.get('ori_shape', masks.shape[1:])[:2]
            if tuple(masks.shape[1:]) != tuple(original):
                raise ValueError(
                    f'masks of {tuple(masks.shape[1:])} pixels on an image of '
                    f'{tuple(original)}: LoadAnnotations has to come after Resize in the '
                    'test pipeline'
                )
        return [
            (k, boxes[labels == k], None if masks is None else masks[labels == k].any(0))
            for k in present
        ]

    def compute_metrics(self, results: list[list[Localisation]]) -> dict[str, float]:
        """Returns the metrics of all images."""
        # on their way to the CPU they become plain tuples
        return summary([Localisation(*one) for image in results for one in image])
