"""Pictures of what a detector or a segmentor predicts beside the ground truth."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from torch import nn

matplotlib.use('Agg')
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

DRAWN_SIZE = 384
"""Pixels of the enlarged images into which detections are drawn: labels, whose size is fixed, are
then small beside the objects, and can still be read."""


def detection_picture(
    detector: nn.Module, images: Sequence[Path], path: Path, score_thr: float = 0.5
) -> None:
    """Draws boxes, masks and labels over images.

    Args:
        detector: An mmdet detector from a Runner or ``init_detector``; its ``cfg`` names classes.
        images: Files.
        path: Of the picture.
        score_thr: Smallest score of a detection that is drawn.
    """
    from mmdet.apis import inference_detector
    from mmdet.visualization import DetLocalVisualizer

    visualizer = DetLocalVisualizer(name='detection_picture', alpha=0.5)
    visualizer.dataset_meta = detector.dataset_meta

    def draw(file: Path) -> np.ndarray:
        image = np.array(Image.open(file).convert('RGB').resize((DRAWN_SIZE,) * 2, Image.BICUBIC))
        sample = inference_detector(detector, image[..., ::-1])
        visualizer.add_datasample(
            file.stem, image, sample, draw_gt=False, pred_score_thr=score_thr, show=False
        )
        return visualizer.get_image()

    _grid(['image', 'detections'], images, [_read, draw], path)


def segmentation_picture(
    segmentor: nn.Module, images: Sequence[Path], label_maps: Sequence[Path], path: Path
) -> None:
    """Draws true and predicted label maps over images.

    Args:
        segmentor: An mmseg segmentor from a Runner or ``init_model``.
        images: Files.
        label_maps: PNG files of the true labels, one for each image.
        path: Of the picture.
    """
    from mmseg.apis import inference_model

    palette = np.array(segmentor.dataset_meta['palette'], dtype=np.float32)
    labels = dict(zip(images, label_maps, strict=True))

    def overlay(file: Path, label_map: np.ndarray) -> np.ndarray:
        image = _read(file).astype(np.float32)
        drawn = 0.3 * image + 0.7 * palette[label_map]
        return np.where((label_map > 0)[..., None], drawn, 0.5 * image).astype(np.uint8)

    def truth(file: Path) -> np.ndarray:
        return overlay(file, np.array(Image.open(labels[file])))

    def prediction(file: Path) -> np.ndarray:
        result = inference_model(segmentor, _read(file)[..., ::-1])
        return overlay(file, result.pred_sem_seg.data[0].cpu().numpy())

    _grid(['image', 'truth', 'prediction'], images, [_read, truth, prediction], path)


def _read(file: Path) -> np.ndarray:
    return np.array(Image.open(file).convert('RGB'))


def _grid(
    titles: Sequence[str],
    images: Sequence[Path],
    draw: Sequence[Callable[[Path], np.ndarray]],
    path: Path,
) -> None:
    """One column an image, one row a way to draw it."""
    figure, axes = plt.subplots(
        len(draw), len(images), figsize=(2.6 * len(images), 2.6 * len(draw)), squeeze=False
    )
    for row, title, function in zip(axes, titles, draw, strict=True):
        row[0].set_ylabel(title)
        for axis, file in zip(row, images, strict=True):
            axis.imshow(function(file))
            axis.set_xticks([])
            axis.set_yticks([])
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=110)
    plt.close(figure)
