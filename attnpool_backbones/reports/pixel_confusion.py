"""What a segmentor gets wrong: how many pixels of which class it takes for which, by image."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnpool_backbones.command_line import UserError
from attnpool_backbones.inference.drawing import draw_label_map
from attnpool_backbones.registry import METRICS
from attnpool_backbones.reports.contents import PAIRS, Column, Contents, Pair, Picture
from attnpool_backbones.reports.figures import confusion_matrix
from attnpool_backbones.reports.noted_images import NotedImages

__all__ = ['PixelConfusion', 'TestedImage', 'report_of_label_maps']

COLUMNS = (
    Column('images', 'with such pixels'),
    Column('pixels', 'of all labelled ones', percent=True),
    Column('IoU', 'pixels that are right, over those labelled or predicted so', percent=True),
    Column('recall', 'pixels of the class that are found', percent=True),
    Column('precision', 'pixels said to be of the class that are', percent=True),
)


@dataclass(frozen=True)
class TestedImage:
    """An image, and what a segmentor makes of it.

    Attributes:
        path: Of the image.
        pairs: N, label times classes plus prediction, those that occur.
        counts: N, of pixels.
        iou: Mean over the classes that are labelled or predicted, from 0 to 1.
        labels: H, W, kept of the worst images alone.
        predictions: Likewise.
    """

    path: str
    pairs: np.ndarray
    counts: np.ndarray
    iou: float
    labels: np.ndarray | None = None
    predictions: np.ndarray | None = None


@METRICS.register_module()
class PixelConfusion(NotedImages):
    """Counts which class of pixels is taken for which; gives no metric.

    Args:
        ignore_index: Label of pixels that do not count. Default: 255.
    """

    pictures = ('labels', 'predictions')

    def __init__(self, ignore_index: int = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Counts the pixels of a batch.

        Args:
            data_batch: The batch.
            data_samples: With ``pred_sem_seg``, ``gt_sem_seg`` and ``img_path``.

        Raises:
            UserError: If the data have no labels.
        """
        classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            if 'gt_sem_seg' not in sample:
                raise UserError('--report: the test data have no labels')
            truth = sample['gt_sem_seg']['data'].squeeze().cpu().numpy()
            # of two classes in one channel they are 0.0 and 1.0
            said = sample['pred_sem_seg']['data'].squeeze().long().cpu().numpy()
            image = _counted(sample['img_path'], truth, said, classes, self.ignore_index)
            self.note(image, -image.iou)


def _counted(
    path: str, truth: np.ndarray, said: np.ndarray, classes: int, ignore_index: int
) -> TestedImage:
    counted = (truth != ignore_index) & (truth < classes) & (said < classes)
    both = truth[counted].astype(np.int64) * classes + said[counted]
    pairs, counts = np.unique(both, return_counts=True)
    matrix = _matrix(pairs, counts, classes)
    present = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    shares = matrix.diagonal()[present > 0] / present[present > 0]
    smallest = np.min_scalar_type(max(classes, ignore_index))
    return TestedImage(
        path, pairs, counts, float(shares.mean()) if shares.size else 1.0,
        truth.astype(smallest), said.astype(smallest),
    )  # fmt: skip


def _matrix(pairs: np.ndarray, counts: np.ndarray, classes: int) -> np.ndarray:
    """Returns how many pixels of which class (rows) are taken for which (columns)."""
    matrix = np.zeros(classes * classes, np.int64)
    matrix[pairs] = counts
    return matrix.reshape(classes, classes)


def report_of_label_maps(
    images: Sequence[TestedImage],
    classes: Sequence[str],
    palette: np.ndarray,
    read_image: Callable[[str], np.ndarray | None],
) -> Contents:
    """Finds out what a segmentor gets wrong.

    Args:
        images: All images of the test.
        classes: Names, by label.
        palette: K, 3 uint8: red, green and blue of each class.
        read_image: Takes the path of an image; returns H, W, 3 uint8 in blue, green, red, or None
            if it cannot be drawn.

    Returns:
        What the report tells.
    """
    matrices = (_matrix(image.pairs, image.counts, len(classes)) for image in images)
    total = np.zeros((len(classes), len(classes)), np.int64)
    holders = np.zeros(len(classes), np.int64)
    for matrix in matrices:
        total += matrix
        holders += matrix.sum(1) > 0
    right, labelled, said = total.diagonal(), total.sum(1), total.sum(0)
    rows: list[list[str | float | None]] = []
    for k, name in enumerate(classes):
        together = labelled[k] + said[k] - right[k]
        rows.append(
            [
                name, int(holders[k]), _share(labelled[k], total.sum()), _share(right[k], together),
                _share(right[k], labelled[k]), _share(right[k], said[k]),
            ]
        )  # fmt: skip
    rows.sort(key=lambda row: (row[3] is None, row[3] or 0.0))
    wrong = total.copy()
    np.fill_diagonal(wrong, 0)
    summary = [f'{100 * right.sum() / max(total.sum(), 1):.1f} % of the labelled pixels are right.']
    if wrong.any():
        shares = wrong / np.maximum(labelled, 1)[:, None]
        k, taken = np.unravel_index(int(shares.argmax()), shares.shape)
        summary.append(
            f'Most often confused: {100 * shares[k, taken]:.1f} % of the pixels of '
            f'{classes[k]} are taken for {classes[taken]}.'
        )
    return Contents(
        summary=summary,
        columns=COLUMNS,
        classes=rows,
        pictures=[
            Picture(
                'confusion', confusion_matrix(total, classes),
                'A row is a class of the labels, a column what the model says; shares of the '
                'pixels of the row.',
            )
        ],
        pairs=_pairs(images, palette, read_image),
        numbers=dict(
            confusion=total, images={image.path: dict(mean_iou=image.iou) for image in images}
        ),
    )  # fmt: skip


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _pairs(
    images: Sequence[TestedImage],
    palette: np.ndarray,
    read_image: Callable[[str], np.ndarray | None],
) -> list[Pair]:
    kept = (each for each in images if each.iou < 1 and each.labels is not None)
    pairs = []
    for each in heapq.nsmallest(PAIRS, kept, lambda image: image.iou):
        image = read_image(each.path)
        if image is not None and image.shape[:2] == each.labels.shape == each.predictions.shape:
            drawn = [draw_label_map(image, m, palette) for m in (each.labels, each.predictions)]
            pairs.append(Pair(each.path, f'mean IoU {100 * each.iou:.1f} %', *drawn))
    return pairs
