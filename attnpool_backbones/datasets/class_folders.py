"""Images in one folder a class, as ImageNet is unpacked."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset

from attnpool_backbones.registry import DATASETS, TRANSFORMS

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


@DATASETS.register_module()
class ClassFolders(BaseDataset):
    """Images whose class is the name of their folder: ``SPLIT/CLASS/*.JPEG``.

    Args:
        data_root: Folder of the data set.
        data_prefix: ``img``: folder of the split, below ``data_root``.
        classes: Names of the folders, in the order of the labels; a text is one name. Default:
            those of ``metainfo``, else all that are not hidden, sorted; by value where all are
            numbers, as in ImageNet-V2.
        metainfo: Of mmengine's ``BaseDataset``: ``classes`` may be a file with a name a line.
        **kwargs: Of mmengine's ``BaseDataset``.

    Raises:
        ValueError: There is no such folder, or no image in it.
    """

    def __init__(
        self,
        data_root: str,
        data_prefix: Mapping[str, str],
        classes: str | Sequence[str] | None = None,
        metainfo: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        folder = Path(data_root, data_prefix['img'])
        if not folder.is_dir():
            raise ValueError(f'{folder.absolute()} is no folder; it has to have one for each class')
        metainfo = self._load_metainfo(metainfo)
        classes = classes or metainfo.get('classes')
        if isinstance(classes, str):
            classes = (classes,)
        if classes is None:
            # tools leave folders such as .ipynb_checkpoints behind
            classes = sorted(
                entry.name
                for entry in folder.iterdir()
                if entry.is_dir() and not entry.name.startswith('.')
            )
            if all(re.fullmatch('[0-9]+', name) for name in classes):
                classes.sort(key=int)
        super().__init__(
            ann_file='', data_root=data_root, data_prefix=dict(data_prefix),
            metainfo={**metainfo, 'classes': tuple(classes)}, **kwargs,
        )  # fmt: skip

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the images, class by class."""
        folder = Path(self.data_prefix['img'])
        found = [
            dict(img_path=str(file), gt_label=label)
            for label, name in enumerate(self.metainfo['classes'])
            for file in sorted((folder / name).glob('*'))
            if file.suffix.lower() in SUFFIXES
        ]
        if not found:
            raise ValueError(
                f'{folder.absolute()} has no image in the folders of its classes '
                f'{self.metainfo["classes"][:5]}'
            )
        return found


@TRANSFORMS.register_module()
class RandomResizedCrop(BaseTransform):
    """Cuts a random part out of an image and scales it to a square (arXiv 1409.4842).

    Args:
        scale: Side of the result in pixels.
        area: Least and greatest share of the image's area. Default: 0.08 to 1.
        ratio: Least and greatest width over height. Default: 3/4 to 4/3.
    """

    ATTEMPTS = 10

    def __init__(
        self,
        scale: int,
        area: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
    ):
        self.scale = scale
        self.area = area
        self.ratio = ratio

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replaces ``img`` H, W, 3."""
        image = results['img']
        top, left, height, width = self._part(*image.shape[:2])
        part = image[top : top + height, left : left + width]
        results['img'] = mmcv.imresize(part, (self.scale, self.scale))
        results['img_shape'] = (self.scale, self.scale)
        return results

    def _part(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """Draws top, left, height and width; the largest allowed in the middle if none fits."""
        for _ in range(self.ATTEMPTS):
            area = rows * columns * np.random.uniform(*self.area)
            ratio = np.exp(np.random.uniform(*np.log(self.ratio)))
            width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < width <= columns and 0 < height <= rows:
                top, left = (np.random.randint(n + 1) for n in (rows - height, columns - width))
                return top, left, height, width
        width = min(columns, round(rows * self.ratio[1]))
        height = min(rows, round(columns / self.ratio[0]))
        return (rows - height) // 2, (columns - width) // 2, height, width


@TRANSFORMS.register_module()
class ShortSide(BaseTransform):
    """Scales an image, so that its shorter side has a length.

    Args:
        side: In pixels.
    """

    def __init__(self, side: int):
        self.side = side

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replaces ``img`` H, W, 3."""
        factor = self.side / min(results['img'].shape[:2])
        size = [max(self.side, round(n * factor)) for n in results['img'].shape[:2]]
        results['img'] = mmcv.imresize(results['img'], (size[1], size[0]))
        results['img_shape'] = tuple(size)
        return results


@TRANSFORMS.register_module()
class PackImage(BaseTransform):
    """Ends a pipeline of classification: ``inputs`` 3, H, W uint8 in RGB, and ``labels``.

    Images come as mmcv loads them, in BGR. Every image of a batch has to have one size by then.
    ``data_samples`` is the path of the image.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        pixels = np.ascontiguousarray(results['img'][..., ::-1].transpose(2, 0, 1))
        return dict(
            inputs=torch.from_numpy(pixels), labels=int(results['gt_label']),
            data_samples=str(results.get('img_path', '')),
        )  # fmt: skip
