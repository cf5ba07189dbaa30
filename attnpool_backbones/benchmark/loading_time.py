"""How long one process needs to load an image of a detector's or segmentor's data set."""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from attnpool_backbones.datasets.building import innermost

PHOTO = (480, 640)
"""Height and width of the JPEG in pixels: most of COCO's."""
OBJECTS = 8
IMAGES = 5


def loading_seconds(cfg: Config, train: bool, images: int = IMAGES) -> float:
    """Reads, decodes and transforms a photo by the config's pipeline, at the config's size.

    Args:
        cfg: Of mmdet or mmseg; its data set need not be there.
        train: Whether the pipeline is that of training, else that of testing.
        images: How often, after one that does not count.

    Returns:
        The median of an image.
    """
    loader = cfg.train_dataloader if train else cfg.test_dataloader
    scope = cfg.default_scope
    with TemporaryDirectory() as folder, DefaultScope.overwrite_default_scope(scope):
        steps = next(innermost(loader.dataset)).pipeline
        pipeline, times = Compose(steps), []
        for _ in range(images + 1):
            if scope == 'mmdet':
                given = _detection_sample(Path(folder))
            else:
                zero = any(step.get('reduce_zero_label') for step in steps)
                given = _segmentation_sample(Path(folder), zero)
            begun = time.perf_counter()
            pipeline(given)
            times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def _photo(folder: Path) -> dict[str, Any]:
    file = folder / 'photo.jpg'
    if not file.exists():
        coarse = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(file), cv2.resize(coarse, PHOTO[::-1], interpolation=cv2.INTER_CUBIC))
    return dict(img_path=str(file), img_id=0, height=PHOTO[0], width=PHOTO[1])


def _detection_sample(folder: Path) -> dict[str, Any]:
    height, width = PHOTO
    instances = []
    for i in range(OBJECTS):
        x1, y1 = i * width // (2 * OBJECTS), i * height // (2 * OBJECTS)
        x2, y2 = x1 + width // 3, y1 + height // 3
        outline = [x1, y1, x2, y1, x2, y2, x1, y2]
        instances.append(dict(bbox=[x1, y1, x2, y2], bbox_label=0, ignore_flag=0, mask=[outline]))
    return dict(_photo(folder), instances=instances)


def _segmentation_sample(folder: Path, reduce_zero_label: bool) -> dict[str, Any]:
    file = folder / 'labels.png'
    if not file.exists():
        cv2.imwrite(str(file), np.arange(PHOTO[0] * PHOTO[1], dtype=np.uint8).reshape(PHOTO) % 19)
    return dict(_photo(folder), seg_map_path=str(file), label_map=None, seg_fields=[],
                reduce_zero_label=reduce_zero_label)  # fmt: skip
