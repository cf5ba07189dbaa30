"""Predictions of a test as files: pictures and label maps that keep the folders of their images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.runner import Runner

from attnpool_backbones.engine.bad_data_hook import data_sets
from attnpool_backbones.registry import HOOKS, METRICS

__all__ = ['LabelMapWriter', 'PredictionPictureHook', 'own_name']

WIDE = 256


def own_name(image: str, roots: Sequence[str]) -> Path:
    """Returns what to call the file of an image: its path below the folder of all images.

    Args:
        image: Path of the image.
        roots: Folders of images; what they have in common is left out.

    Returns:
        A relative path, another one for every image.
    """
    path = Path(os.path.abspath(image))
    folders = [os.path.abspath(root) for root in roots if root and '://' not in root]
    if folders:
        root = os.path.commonpath(folders)
        if path.is_relative_to(root) and path != Path(root):
            return path.relative_to(root)
    return path.relative_to(path.anchor)


@HOOKS.register_module()
class PredictionPictureHook(Hook):
    """Draws the predictions of a test, as files in the folders of their images or in windows.

    Unlike mmdet's and mmseg's own hooks it keeps images of the same name in two folders apart, and
    asks for nothing of a training.

    Args:
        out_dir: Folder for the pictures. Default: None, no files.
        show: Whether to open windows. Default: False.
        wait_time: Seconds that a window stays. Default: 0, until a key is pressed.
        score_thr: Detections of a lower score are not drawn.
    """

    def __init__(
        self,
        out_dir: str | None = None,
        show: bool = False,
        wait_time: float = 0.0,
        score_thr: float = 0.3,
    ) -> None:
        self.out_dir = out_dir
        self.show = show
        self.wait_time = wait_time
        self.score_thr = score_thr
        self.roots: list[str] = []

    def before_test(self, runner: Runner) -> None:
        """Asks the data sets for the folders of their images."""
        self.roots = image_folders(runner.test_loop.dataloader.dataset)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Draws the images of a batch.

        Args:
            runner: The running test.
            batch_idx: Index of the batch.
            data_batch: The batch.
            outputs: Data samples with predictions.
        """
        import mmcv

        visualizer = runner.visualizer
        for sample in outputs or ():
            name = own_name(sample.img_path, self.roots)
            image = mmcv.imfrombytes(get(sample.img_path), channel_order='rgb')
            options: dict[str, Any] = {}
            if 'pred_instances' in sample:
                options['pred_score_thr'] = self.score_thr
            if self.out_dir:
                options['out_file'] = os.path.join(self.out_dir, picture_name(name))
            if self.out_dir or self.show:
                visualizer.add_datasample(
                    str(name),
                    image,
                    data_sample=sample,
                    show=self.show,
                    wait_time=self.wait_time,
                    **options,
                )


def picture_name(name: Path) -> str:
    """Returns a name in a format that can be written."""
    known = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
    return str(name) if name.suffix.lower() in known else f'{name}.png'


def image_folders(dataset: Any) -> list[str]:
    """Returns the folders of images of all data sets inside of wrappers."""
    folders = []
    for each in data_sets(dataset):
        prefixes = each.data_prefix
        folders.append(prefixes.get('img_path') or prefixes.get('img') or each.data_root or '')
    return folders


@METRICS.register_module()
class LabelMapWriter(BaseMetric):
    """Writes the label maps of a segmentor as PNG files, in the folders of their images.

    Labels are those of the files: where 0 is "other" (`reduce_zero_label`) they count from 1.

    Args:
        out_dir: Where to.
        roots: Folders of images, whose common part is left out of the names. Default: none.
        suffix: What the names of the images end in, and those of the maps do not.
    """

    def __init__(self, out_dir: str, roots: Sequence[str] = (), suffix: str = '') -> None:
        super().__init__(collect_device='cpu')
        self.out_dir = Path(out_dir)
        self.roots = list(roots)
        self.suffix = suffix

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Writes the maps of a batch.

        Args:
            data_batch: The batch.
            data_samples: With `pred_sem_seg` and `img_path`.
        """
        from PIL import Image

        for sample in data_samples:
            labels = sample['pred_sem_seg']['data'].squeeze(0).cpu().numpy()
            labels = labels + bool(sample.get('reduce_zero_label', False))
            labels = labels.astype(np.uint8 if labels.max(initial=0) < WIDE else np.uint16)
            name = own_name(sample['img_path'], self.roots)
            stem = str(name).removesuffix(self.suffix) if self.suffix else str(name.with_suffix(''))
            path = self.out_dir / f'{stem}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(path)

    def evaluate(self, size: int) -> dict:
        """Returns no metrics: the files are all there is."""
        return {}

    def compute_metrics(self, results: list) -> dict:
        """Returns no metrics."""
        return {}
