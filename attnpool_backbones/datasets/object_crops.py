"""Crops of the instances of a COCO data set, as images of one class each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from attnpool_backbones.registry import DATASETS

__all__ = ['MEAN', 'SIDE', 'STD', 'ObjectCrops', 'Objects']

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
    classes: tuple[str, ...] = ()
    """Names, by label."""

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
        classes = tuple(coco.cats[key]['name'] for key in of_category)
        return cls(images, [(a['image_id'], tuple(a['bbox'])) for a in objects], labels, classes)

    def pixels(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> Tensor:
        """Cuts objects out and scales them to one size.

        Args:
            indices: Of the objects, N.
            rng: Source of random scale and offset; None: always in the middle, at the mean scale.

        Returns:
            N, 3, 48, 48 uint8, RGB.
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
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)

    def crops(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> Tensor:
        """Returns :meth:`pixels`, normalised."""
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        return (self.pixels(indices, rng).float() - mean) / std


@DATASETS.register_module()
class ObjectCrops(Dataset):
    """The instances of a COCO data set, one image of 48x48 pixels each.

    Args:
        ann_file: The annotations, below ``data_root``.
        data_prefix: ``img``: folder of the images, below ``data_root``.
        data_root: Folder of the data set.
        jitter: Whether scale and place of the object are drawn, as training wants it.
    """

    def __init__(
        self, ann_file: str, data_prefix: Mapping[str, str], data_root: str = '',
        jitter: bool = False,
    ):  # fmt: skip
        root = Path(data_root)
        self.objects = Objects.load(root / ann_file, root / data_prefix['img'])
        self.metainfo = dict(classes=self.objects.classes)
        self.jitter = jitter

    def __len__(self) -> int:
        return len(self.objects.boxes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns ``inputs`` 3, 48, 48 uint8 RGB and the label."""
        # seeded anew for each batch by RandomStateHook, as everything that numpy draws
        rng = np.random.default_rng(np.random.randint(2**31)) if self.jitter else None
        pixels = self.objects.pixels(np.array([index]), rng)[0]
        return dict(inputs=pixels, labels=int(self.objects.labels[index]))
