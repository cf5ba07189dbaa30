"""Pictures of what a model predicts, drawn as ``attnpool predict`` draws it."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from attnpool_backbones.analysis.drawing import axes_grid, show_image
from attnpool_backbones.inference.drawing import draw, draw_label_map
from attnpool_backbones.inference.predictor import Predictor
from attnpool_backbones.inference.sources import open_source

__all__ = ['predictions_picture']

DRAWN_SIZE = 384
"""Pixels of the enlarged images into which detections are drawn: labels, whose size is fixed, are
then small beside the objects, and can still be read."""


def predictions_picture(
    predictor: Predictor, images: Sequence[Path], label_maps: Sequence[Path] = (),
    score: float = 0.5,
) -> Figure:  # fmt: skip
    """Draws predictions below their images, a column an image.

    Args:
        predictor: A detector or a segmentor.
        images: Files.
        label_maps: PNG files of the true labels, one for each image, for a row of their own between
            images and predictions. Default: there is no such row.
        score: Smallest score of an object that is drawn.
    """
    shown = [frame.read() for frame in open_source(images).frames]
    if predictor.is_detector:
        size = DRAWN_SIZE, DRAWN_SIZE
        shown = [cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in shown]
    rows = dict(image=shown)
    if label_maps:
        true = [np.array(Image.open(file)) for file in label_maps]
        rows['truth'] = [
            draw_label_map(image, label_map, predictor.palette)
            for image, label_map in zip(shown, true, strict=True)
        ]
    predictions = predictor(shown, score=score)
    rows['prediction'] = [
        draw(image, prediction) for image, prediction in zip(shown, predictions, strict=True)
    ]
    figure, axes = axes_grid(len(rows), len(images), shown[0])
    for cells, (title, drawn) in zip(axes, rows.items(), strict=True):
        for cell, image in zip(cells, drawn, strict=True):
            show_image(cell, image[..., ::-1], title)
    return figure
