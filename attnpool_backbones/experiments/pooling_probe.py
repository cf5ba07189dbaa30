"""Image-level heads trained on the frozen features of a detector: attention against average.

From image-level labels alone a head learns which classes are in an image; its class maps then show
where the classes are. Attention pooling has one class token per class (arXiv 2112.13692), average
pooling class activation maps (arXiv 1512.04150, 1610.02391).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.dense_models.image_tags import TAGS, true_tags
from attnpool_backbones.evaluation import ImageTagMetric, LocalisationMetric
from attnpool_backbones.heads import ImageTagHead

BATCH = 32
"""Images of a training step."""


@dataclass(frozen=True)
class LabelledMaps:
    """Last feature maps of images and what is in them."""

    maps: Tensor
    """N, C, h, w."""
    labels: Tensor
    """N, K: 1 where the image has the class, else 0."""
    samples: Sequence[Mapping[str, Any]]
    """Annotations of each image as the metrics take them; empty if none were kept."""
    stride: int
    """Pixels per position of the maps."""


@torch.no_grad()
def collect_maps(
    model: nn.Module, batches: Iterable[dict], num_classes: int, with_objects: bool = False
) -> LabelledMaps:
    """Runs a detector's backbone over a data loader.

    Args:
        model: An mmdet detector with a backbone of this package.
        batches: Of mmdet's data loader, with ground truth.
        num_classes: Number of classes K.
        with_objects: Whether to keep boxes and masks. Test pipelines load them after ``Resize``,
            so they are those of the original image, which has to have the size of the input.

    Returns:
        The last backbone map of every image, with labels, on the CPU: small heads learn from them.
    """
    model.eval()
    maps, labels, samples = [], [], []
    for batch in batches:
        batch = model.data_preprocessor(batch, False)
        maps.append(model.backbone(batch['inputs'])[-1].contiguous().cpu())
        labels += [(true_tags(s, num_classes) == 1).cpu() for s in batch['data_samples']]
        if with_objects:
            samples += [dict(gt_instances=s.gt_instances.to_dict()) for s in batch['data_samples']]
    return LabelledMaps(
        torch.cat(maps), torch.stack(labels).float(), samples, model.backbone.out_strides[-1]
    )


def train_probe(
    train: LabelledMaps,
    pooling: Mapping[str, Any] | None = None,
    epochs: int = 20,
    lr: float = 1e-3,
) -> ImageTagHead:
    """Trains a head to tell which classes an image has.

    Args:
        train: Frozen feature maps and labels.
        pooling: As :class:`ImageTagHead` takes it. Default: attention pooling, a token a class.
        epochs: Passes over the maps.
        lr: Peak learning rate of AdamW under one cosine.

    Returns:
        The head, in eval mode.
    """
    num_images, channels = train.maps.shape[:2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = ImageTagHead(channels, train.labels.shape[1], pooling=pooling)
        steps = epochs * -(-num_images // BATCH)
        optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        # Most classes are absent from most images.
        positives = train.labels.mean(0).clamp(min=1 / num_images)
        for _ in range(epochs):
            for chosen in torch.randperm(num_images).split(BATCH):
                logits = head(train.maps[chosen]).logits
                loss = F.binary_cross_entropy_with_logits(
                    logits, train.labels[chosen], pos_weight=(1 - positives) / positives
                )
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(head.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    return head.eval()


@torch.no_grad()
def evaluate_probe(head: ImageTagHead, val: LabelledMaps) -> dict[str, float]:
    """Measures what a head knows and where its maps are bright.

    Args:
        head: Of :func:`train_probe`.
        val: Maps of other images, with their objects.

    Returns:
        Those of :class:`ImageTagMetric` and :class:`LocalisationMetric`, in percent.
    """
    logits, maps = head(val.maps, return_maps=True)
    samples = [
        {**sample, TAGS: dict(scores=scores, maps=own, cell=(val.stride, val.stride))}
        for sample, scores, own in zip(val.samples, logits.sigmoid(), maps, strict=True)
    ]
    measured = {}
    for metric in (ImageTagMetric(), LocalisationMetric()):
        metric.process(None, samples)
        measured |= metric.evaluate(len(samples))
    return measured
