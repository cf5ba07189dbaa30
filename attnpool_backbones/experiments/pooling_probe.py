"""Attention pooling trained on the frozen features of a detector or segmentor.

One class token per class learns, from image-level labels alone, which classes are in an image; its
attention map then shows where the class was found (arXiv 2112.13692, one token per class).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.heads import AttentionPoolingHead


@dataclass(frozen=True)
class LabelledMaps:
    """Last feature maps of images and what is in them."""

    maps: Tensor
    """N, C, h, w."""
    labels: Tensor
    """N, K: 1 where the image has the class, else 0."""
    boxes: Sequence[Tensor]
    """Per image n_i, 4: x1, y1, x2, y2 in pixels of the network's input."""
    classes: Sequence[Tensor]
    """Per image n_i: class of each box."""
    stride: int
    """Pixels per position of the maps."""


@torch.no_grad()
def collect_maps(model: nn.Module, batches: Iterable[dict], num_classes: int) -> LabelledMaps:
    """Runs a detector's backbone over a data loader.

    Args:
        model: An mmdet detector with a backbone of this package.
        batches: Of mmdet's data loader, with ground truth boxes.
        num_classes: Number of classes K.

    Returns:
        The last backbone map of every image, with labels and boxes.
    """
    model.eval()
    maps, labels, boxes, classes = [], [], [], []
    for batch in batches:
        batch = model.data_preprocessor(batch, False)
        maps.append(model.backbone(batch['inputs'])[-1].contiguous())
        for sample in batch['data_samples']:
            instances = sample.gt_instances
            box = instances.bboxes
            box = getattr(box, 'tensor', box)
            if sample.get('scale_factor') is not None and 'flip' not in sample:
                # Test pipelines load boxes after Resize, in pixels of the original image.
                box = box * box.new_tensor(sample.scale_factor).repeat(2)
            boxes.append(box)
            classes.append(instances.labels)
            labels.append(F.one_hot(instances.labels.unique(), num_classes).sum(0))
    return LabelledMaps(
        torch.cat(maps), torch.stack(labels).float(), boxes, classes, model.backbone.out_strides[-1]
    )


def train_probe(
    train: LabelledMaps,
    epochs: int = 20,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> AttentionPoolingHead:
    """Trains attention pooling with one token per class to tell which classes an image has.

    Args:
        train: Frozen feature maps and labels.
        epochs: Passes over the maps.
        batch_size: Images a step.
        lr: Peak learning rate of AdamW under one cosine.
        seed: Of initial weights and order.
        progress: Called with (steps done, steps in all).

    Returns:
        The head, in eval mode.
    """
    num_images, channels = train.maps.shape[:2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Layer scale 1: a single layer that trains for a minute needs no slow start.
        head = AttentionPoolingHead(
            channels, train.labels.shape[1], per_class=True, layer_scale_init=1.0
        )
        # The published initial weights are so small that attention starts, and for long stays,
        # uniform.
        for module in head.pool.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        steps = epochs * -(-num_images // batch_size)
        optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        # Most classes are absent from most images.
        positives = train.labels.mean(0).clamp(min=1 / num_images)
        step = 0
        for _ in range(epochs):
            for chosen in torch.randperm(num_images).split(batch_size):
                logits = head(train.maps[chosen]).logits
                loss = F.binary_cross_entropy_with_logits(
                    logits, train.labels[chosen], pos_weight=(1 - positives) / positives
                )
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(head.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                step += 1
                if progress is not None:
                    progress(step, steps)
    return head.eval()


@torch.no_grad()
def evaluate_probe(head: AttentionPoolingHead, val: LabelledMaps) -> dict[str, float]:
    """Measures what the class tokens know and where they look.

    Args:
        head: Of :func:`train_probe`.
        val: Maps of other images.

    Returns:
        In percent: ``image_mAP``, the mean over classes of the average precision of "the image has
        the class"; ``pointing``, how often the attention peak of a class that the image has lies
        in a box of that class; ``pointing_chance``, the same for a random position.
    """
    logits, maps = head(val.maps, return_maps=True)
    precisions = [
        average_precision_score(val.labels[:, k].numpy(), logits[:, k].numpy())
        for k in range(val.labels.shape[1])
        if val.labels[:, k].any()
    ]
    hits, chances = [], []
    for attention, boxes, classes in zip(maps, val.boxes, val.classes, strict=True):
        for k in classes.unique():
            peak = int(attention[k].argmax())
            ys, xs = torch.meshgrid(*(torch.arange(n) for n in attention[k].shape), indexing='ij')
            centres = (torch.stack([xs, ys], dim=-1).flatten(0, 1) + 0.5) * val.stride
            own = boxes[classes == k]
            inside = (
                (centres[:, None] >= own[None, :, :2]) & (centres[:, None] <= own[None, :, 2:])
            ).all(-1).any(-1)  # fmt: skip
            hits.append(float(inside[peak]))
            chances.append(float(inside.float().mean()))
    return dict(
        image_mAP=100 * float(np.mean(precisions)),
        pointing=100 * float(np.mean(hits)),
        pointing_chance=100 * float(np.mean(chances)),
    )
