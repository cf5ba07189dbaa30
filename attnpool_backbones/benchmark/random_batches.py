"""Random images with random ground truth for a detector or a segmentor."""

from typing import Any

import torch
from mmengine.config import Config


def random_batch(cfg: Config, size: tuple[int, int], batch: int = 1) -> dict[str, Any]:
    """Makes what a data loader of the config's library would give.

    Args:
        cfg: Config of mmdet or mmseg.
        size: Height and width of the images, in pixels.
        batch: Number of images.

    Returns:
        ``inputs``, a list of uint8 images 3, H, W, and ``data_samples``.
    """
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        for _ in range(batch)
    ]
    make = _detection_sample if cfg.default_scope == 'mmdet' else _segmentation_sample
    samples = [make(cfg, size, generator) for _ in range(batch)]
    return dict(inputs=images, data_samples=samples)


def _meta(size: tuple[int, int]) -> dict[str, Any]:
    return dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size,
                scale_factor=(1.0, 1.0), img_id=0, img_path='')  # fmt: skip


def _detection_sample(cfg: Config, size: tuple[int, int], generator: torch.Generator) -> object:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    height, width = size
    count = 8
    corner = torch.rand(count, 2, generator=generator) * 0.7
    extent = 0.05 + torch.rand(count, 2, generator=generator) * 0.25
    boxes = torch.cat([corner, corner + extent], 1) * torch.tensor([width, height] * 2)
    masks = torch.zeros(count, height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y1 : y2 + 1, x1 : x2 + 1] = 1
    truth = InstanceData(
        bboxes=boxes,
        labels=torch.zeros(count, dtype=torch.long),
        masks=BitmapMasks(masks.numpy(), height, width),
    )
    ignored = InstanceData(bboxes=boxes[:0], labels=truth.labels[:0])
    sample = DetDataSample(metainfo=_meta(size))
    sample.gt_instances, sample.ignored_instances = truth, ignored
    return sample


def _segmentation_sample(cfg: Config, size: tuple[int, int], generator: torch.Generator) -> object:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = torch.randint(0, cfg.model.decode_head.num_classes, (1, *size), generator=generator)
    return SegDataSample(metainfo=_meta(size), gt_sem_seg=PixelData(data=labels))
