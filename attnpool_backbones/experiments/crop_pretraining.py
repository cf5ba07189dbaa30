"""Classification pretraining of a backbone on the instances of a COCO data set.

The published recipes start from a classifier of ImageNet. Where there are no pretrained weights, a
minute on crops of the training instances serves the same end: a detector or a segmentor from
scratch stays at "object or not" for long before it tells classes apart.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.atomic_files import write_atomically

SIDE = 48
"""Side of a crop in pixels."""
CONTEXT = (1.0, 2.0)
"""Crop over the longer side of the box: an object fills the crop, or half of it."""
SHIFT = 0.1
"""Greatest offset of the object from the centre, in crops."""
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of RGB, as in the detectors' and segmentors' preprocessors."""


@dataclass(frozen=True)
class Objects:
    """Labelled boxes and the images that they lie in."""

    images: dict[int, np.ndarray]
    """Image id -> H, W, 3 uint8 RGB."""
    boxes: list[tuple[int, tuple[float, float, float, float]]]
    """Image id and x, y, width, height in pixels."""
    labels: Tensor
    """N, int64, from 0."""

    @classmethod
    def load(cls, annotations: Path, folder: Path) -> 'Objects':
        """Reads COCO annotations and all their images.

        Args:
            annotations: The JSON file.
            folder: Of the images.
        """
        from pycocotools.coco import COCO

        coco = COCO(str(annotations))
        images = {
            key: mmcv.imread(str(folder / image['file_name']), channel_order='rgb')
            for key, image in coco.imgs.items()
        }
        of_category = {key: label for label, key in enumerate(sorted(coco.cats))}
        objects = [a for a in coco.anns.values() if not a['iscrowd']]
        labels = torch.tensor([of_category[a['category_id']] for a in objects])
        return cls(images, [(a['image_id'], tuple(a['bbox'])) for a in objects], labels)

    def crops(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> Tensor:
        """Cuts objects out and scales them to one size.

        Args:
            indices: Of the objects, N.
            rng: Source of random scale and offset; None: always in the middle, at the mean scale.

        Returns:
            N, 3, 48, 48, normalised.
        """
        crops = []
        for index in indices:
            key, (x, y, width, height) = self.boxes[index]
            context = rng.uniform(*CONTEXT) if rng else sum(CONTEXT) / 2
            extent = max(width, height) * context  # pixels of the image
            offset = rng.uniform(-SHIFT, SHIFT, 2) * extent if rng else np.zeros(2)
            centre = (x + width / 2 + offset[0], y + height / 2 + offset[1])
            scale = SIDE / extent
            matrix = np.array(
                [
                    [scale, 0, SIDE / 2 - scale * centre[0]],
                    [0, scale, SIDE / 2 - scale * centre[1]],
                ]
            )
            crops.append(
                cv2.warpAffine(
                    self.images[key], matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT
                )
            )
        pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float()  # N, 3, 48, 48
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        return (pixels - mean) / std


class CropClassifier(nn.Module):
    """Average of a backbone's last map, BatchNorm and a linear classifier."""

    def __init__(self, backbone: BaseModule, num_classes: int):
        super().__init__()
        self.backbone = backbone
        backbone.eval()  # the size of its output must not move statistics
        with torch.no_grad():
            channels = backbone(torch.zeros(1, 3, SIDE, SIDE))[-1].shape[1]
        self.norm = nn.BatchNorm1d(channels)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # B, 3, 48, 48
        """Returns the logits, B, num_classes."""
        x = self.backbone(x)[-1]  # B, C, h, w
        return self.classifier(self.norm(x.mean((2, 3))))


def pretrain(
    backbone: BaseModule,
    objects: Objects,
    steps: int = 300,
    batch: int = 64,
    lr: float = 2e-3,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> CropClassifier:
    """Trains a backbone, in-place, to classify crops.

    Args:
        backbone: With its last stage among ``out_indices``.
        objects: To learn from.
        steps: Of AdamW, warm-up of a tenth and one cosine.
        batch: Crops a step.
        lr: Greatest learning rate.
        progress: Called with the number of steps done, of all, and the loss.

    Returns:
        The classifier in eval mode.
    """
    rng = np.random.default_rng(0)
    model = CropClassifier(backbone, int(objects.labels.max()) + 1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        indices = rng.integers(len(objects.boxes), size=batch)
        loss = F.cross_entropy(model(objects.crops(indices, rng)), objects.labels[indices])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        progress(step + 1, steps, loss.item())
    return model.eval()


@torch.no_grad()
def accuracy(model: CropClassifier, objects: Objects, batch: int = 100) -> float:
    """Returns the share of the objects that a classifier names rightly, 0 to 1."""
    hits = 0
    for indices in np.split(np.arange(len(objects.boxes)), range(batch, len(objects.boxes), batch)):
        hits += int((model(objects.crops(indices)).argmax(1) == objects.labels[indices]).sum())
    return hits / len(objects.boxes)


def save_backbone(model: CropClassifier, path: Path) -> None:
    """Writes a file for ``init_cfg=dict(type='Pretrained', prefix='backbone.', ...)``.

    The names have this prefix because mmdet's Swin takes no others.
    """
    content = io.BytesIO()
    weights = {f'backbone.{name}': value for name, value in model.backbone.state_dict().items()}
    torch.save(weights, content)
    write_atomically(content.getvalue(), path)
