"""Classification pretraining of a backbone on the instances of a COCO data set.

The published recipes start from a classifier of ImageNet. Where there are no pretrained weights, a
minute on crops of the training instances serves the same end: a detector or a segmentor from
scratch stays at "object or not" for long before it tells classes apart.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.datasets.object_crops import SIDE, Objects

EVALUATED = 100
"""Crops that are classified at once."""


class CropClassifier(nn.Module):
    """A backbone, and a BatchNorm and a linear classifier on the average of its last map.

    Args:
        backbone: Gives a tuple of maps.
        num_classes: Classes.
    """

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
def accuracy(model: CropClassifier, objects: Objects) -> float:
    """Returns the share of the objects that a classifier names rightly, 0 to 1."""
    hits, count = 0, len(objects.boxes)
    for indices in np.split(np.arange(count), range(EVALUATED, count, EVALUATED)):
        hits += int((model(objects.crops(indices)).argmax(1) == objects.labels[indices]).sum())
    return hits / count


def save_backbone(model: CropClassifier, path: Path) -> None:
    """Writes a file for ``init_cfg=dict(type='Pretrained', prefix='backbone.', ...)``.

    The names have this prefix because mmdet's Swin takes no others.
    """
    content = io.BytesIO()
    weights = {f'backbone.{name}': value for name, value in model.backbone.state_dict().items()}
    torch.save(weights, content)
    write_atomically(content.getvalue(), path)
