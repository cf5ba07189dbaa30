"""Schedule, sizes and rates that fit the data, where the user has not said them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from attnpool_backbones.own_data.anchors import Anchors
from attnpool_backbones.own_data.bases import Bases

__all__ = ['Plan', 'choose_epochs', 'choose_lr', 'choose_size', 'choose_val_interval', 'make_plan']

LONGEST = 1333
"""Pixels of the longer side of large images, as the published detectors take them."""
SHORTEST = 256
"""Pixels to which smaller images are enlarged."""
STEP = 32
"""Sides are multiples of it: the deepest stride."""
FEW = 500
"""Images below which pretrained early stages are kept as they are."""


@dataclass(frozen=True)
class Plan:
    """All numbers of a training, chosen or said.

    Args:
        epochs: Passes over the training images.
        val_interval: Epochs between validations.
        batch: Images of a step, over all devices.
        lr: Of AdamW.
        warmup: Steps of rising learning rate.
        size: Pixels of the longer side of resized images.
        crop: Height and width of the crops that segmentors train on, None for detectors.
        weights: Pretrained weights of the backbone, None: from scratch.
        frozen: Stages of the backbone that are not trained, -1 for none.
        anchors: None: those of the base.
    """

    epochs: int
    val_interval: int
    batch: int
    lr: float
    warmup: int
    size: int
    crop: tuple[int, int] | None = None
    weights: str | None = None
    frozen: int = -1
    anchors: Anchors | None = None


def choose_epochs(images: int) -> int:
    """More passes over fewer images: 12 from 8,000 on, as on COCO, at most 100.

    Args:
        images: To train on.
    """
    return int(min(max(round(1100 / math.sqrt(images)), 12), 100))


def choose_val_interval(epochs: int) -> int:
    """Validates about ten times."""
    return max(1, epochs // 10)


def choose_size(sizes: Sequence[tuple[int, int]]) -> int:
    """Takes images as large as the half of them are, within the range of published recipes.

    Args:
        sizes: Width and height of the images in pixels.

    Returns:
        Pixels of the longer side.
    """
    longer = float(np.median([max(size) for size in sizes]))
    if longer >= LONGEST:
        return LONGEST
    return max(SHORTEST, math.ceil(longer / STEP) * STEP)


def choose_batch(images: int) -> int:
    """Eight images with CUDA and four without, fewer where there are few."""
    usual = 8 if torch.cuda.is_available() else 4
    return max(1, min(usual, images // 8))


def choose_lr(batch: int, bases: Bases, pretrained: bool) -> float:
    """Takes the rate of the recipes at batch 16, times the root of the batch over 16.

    Adaptive steps grow with the root of the batch (arXiv 2205.10287). Without pretrained weights
    the rate is five times as high, for nano sizes ten times, as the digit scenes are trained.

    Args:
        batch: Images of a step.
        bases: Backbone and head; RetinaNet takes half.
        pretrained: Whether the backbone starts from weights.
    """
    rate = 1e-4 if bases.head == 'retinanet' else 2e-4
    if not pretrained:
        rate *= 10 if bases.is_nano else 5
    return float(f'{rate * math.sqrt(batch / 16):.2g}')


def choose_crop(sizes: Sequence[tuple[int, int]], size: int) -> tuple[int, int]:
    """Takes crops of the shape of most images, in whole steps.

    Returns:
        Height and width in pixels.
    """
    width, height = (float(np.median([s[side] for s in sizes])) for side in (0, 1))
    scale = size / max(width, height)
    sides = (max(STEP, round(side * scale / STEP) * STEP) for side in (height, width))
    return tuple(sides)


def make_plan(
    bases: Bases,
    sizes: Sequence[tuple[int, int]],
    images: int,
    weights: str | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    size: int | None = None,
    freeze: int | None = None,
) -> Plan:
    """Chooses what is not said.

    Args:
        bases: Backbone and head.
        sizes: Width and height of all images in pixels.
        images: To train on.
        weights: File with pretrained weights of the backbone.
        epochs: Said by the user.
        batch: Said by the user.
        lr: Said by the user.
        size: Said by the user.
        freeze: Said by the user: stages of the backbone.
    """
    epochs = epochs or choose_epochs(images)
    batch = batch or choose_batch(images)
    size = size or choose_size(sizes)
    steps = max(1, images // batch) * epochs
    if freeze is None:
        freeze = 1 if weights and images < FEW else -1
    return Plan(
        epochs=epochs,
        val_interval=choose_val_interval(epochs),
        batch=batch,
        lr=lr or choose_lr(batch, bases, weights is not None),
        warmup=max(1, min(500, steps // 10)),
        size=size,
        crop=choose_crop(sizes, size) if bases.kind.segments else None,
        weights=None if weights is None else str(Path(weights).absolute()),
        frozen=freeze,
    )
