"""Writes the report of a test when its metrics are known."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from attnpool_backbones.class_colours import distinct_colours
from attnpool_backbones.command_line import UserError
from attnpool_backbones.engine.bad_data_hook import data_sets
from attnpool_backbones.registry import HOOKS
from attnpool_backbones.reports.contents import Contents
from attnpool_backbones.reports.detections import Detected, report_of_detections
from attnpool_backbones.reports.image_confusion import ImageConfusion, report_of_images
from attnpool_backbones.reports.page import write_report
from attnpool_backbones.reports.pixel_confusion import PixelConfusion, report_of_label_maps

__all__ = ['ReportHook']


@HOOKS.register_module()
class ReportHook(Hook):
    """Writes what a model gets wrong on the data of a test, as a page.

    The evaluator has a ``CocoMetric`` that writes its results (``outfile_prefix``), which are
    moved into the folder, a :class:`PixelConfusion` or an :class:`ImageConfusion`.

    Args:
        out_dir: Folder of the page.
        title: Of the page.
    """

    priority = 'LOWEST'

    def __init__(self, out_dir: str, title: str) -> None:
        self.out_dir = Path(out_dir)
        self.title = title

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Writes the report, in the first process.

        Args:
            runner: The running test.
            metrics: Of the test.

        Raises:
            UserError: If there is nothing to tell.
        """
        if runner.rank != 0:
            return
        contents = self._contents(runner)
        page = write_report(contents, metrics or {}, self.title, self.out_dir)
        for sentence in contents.summary:
            print(sentence)
        print(f'report: {page}', flush=True)

    def _contents(self, runner: Runner) -> Contents:
        dataset = runner.test_loop.dataloader.dataset
        for metric in runner.test_loop.evaluator.metrics:
            if isinstance(metric, ImageConfusion):
                classes = (metric.dataset_meta or {}).get('classes', ())
                return report_of_images(metric.images, classes)
            if isinstance(metric, PixelConfusion):
                classes = metric.dataset_meta['classes']
                palette = metric.dataset_meta.get('palette') or distinct_colours(len(classes))
                return report_of_label_maps(
                    metric.images, classes, np.array(palette, np.uint8), _reader(dataset)
                )
            if type(metric).__name__ == 'CocoMetric' and _evaluates(metric):
                test = _detected(metric, self.out_dir)
                return report_of_detections(test, _paths(dataset), _reader(dataset))
        raise UserError(
            '--report: the evaluator has no CocoMetric, PixelConfusion or ImageConfusion'
        )


def _evaluates(metric: Any) -> bool:
    """Tells whether a ``CocoMetric`` evaluates boxes or masks, and writes them, too."""
    is_written = metric.outfile_prefix is not None and not metric.format_only
    return is_written and not {'bbox', 'segm'}.isdisjoint(metric.metrics)


def _detected(metric: Any, folder: Path) -> Detected:
    results = {}
    for kind in metric.metrics:
        if kind in ('bbox', 'segm'):
            file = Path(f'{metric.outfile_prefix}.{kind}.json')
            results[kind] = json.loads(file.read_bytes())
            file.replace(folder / f'predictions.{kind}.json')
    classes = metric.dataset_meta['classes']
    return Detected(metric._coco_api.dataset, results, metric.cat_ids, metric.img_ids, classes)


def _paths(dataset: Any) -> dict[int, str]:
    """Returns where the images are, by their numbers."""
    paths = {}
    for each in data_sets(dataset):
        for index in range(len(each)):
            entry = each.get_data_info(index)
            paths[entry['img_id']] = entry['img_path']
    return paths


def _reader(dataset: Any) -> Callable[[str], np.ndarray | None]:
    """Returns what reads an image as the data set does; None for what is no picture."""
    steps = next(data_sets(dataset)).pipeline.transforms

    def read(path: str) -> np.ndarray | None:
        loaded = dict(img_path=path)
        try:
            for step in steps:  # the limits of what is loaded, then the loader
                loaded = step(loaded) or {}
                if 'img' in loaded:
                    break
        except MemoryError:
            raise
        except Exception:  # the test left it out, too, or its loader is anybody's
            return None
        image = loaded.get('img')
        if image is None or image.dtype != np.uint8:
            return None
        if image.ndim == 2 or image.shape[2] == 1:
            return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        return image if image.shape[2] == 3 else None

    return read
