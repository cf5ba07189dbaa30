"""What an image classifier gets wrong: which class it takes for which, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from attnpool_backbones.command_line import UserError
from attnpool_backbones.registry import METRICS
from attnpool_backbones.reports.contents import PAIRS, Column, Contents, Pair, Picture
from attnpool_backbones.reports.figures import confusion_matrix
from attnpool_backbones.reports.noted_images import NotedImages

__all__ = ['ClassifiedImage', 'ImageConfusion', 'report_of_images']

DOUBTS = 20
"""Labels that are named as perhaps wrong."""
FEW = 10
"""Classes up to which the five highest scores tell little."""
SHOWN = 192
"""Least height of a picture on the page in pixels: crops of digits have 48."""
COLUMNS = (
    Column('images', 'with this label'),
    Column('F1', 'twice those that are right, over labelled and said ones', percent=True),
    Column('recall', 'images of the class that are recognised', percent=True),
    Column('precision', 'images said to be of the class that are', percent=True),
)
TOP5 = Column('top 5', 'images of the class with it among the five highest scores', percent=True)


@dataclass(frozen=True)
class ClassifiedImage:
    """An image, and what a classifier says.

    Attributes:
        name: Its path; empty if the data tell none.
        classes: How many there are.
        label: From 0.
        said: The class of the highest score; of several, one that is not the label's.
        score: Of that class, from 0 to 1.
        label_score: Of the label.
        rank: How many other classes score as high as the label at least.
        pixels: 3, H, W uint8 in red, green, blue, as the model gets them; of the surest mistakes
            alone.
    """

    name: str
    classes: int
    label: int
    said: int
    score: float
    label_score: float
    rank: int
    pixels: np.ndarray | None = None


@METRICS.register_module()
class ImageConfusion(NotedImages):
    """Notes which class of images is taken for which; gives no metric."""

    pictures = ('pixels',)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Notes the images of a batch.

        Args:
            data_batch: With ``inputs`` B, 3, H, W.
            data_samples: Of :class:`ImageClassifier`: ``scores`` K, ``label`` and, where the data
                tell it, ``img_path``.

        Raises:
            UserError: If the data have no labels.
        """
        for sample, pixels in zip(data_samples, data_batch['inputs'], strict=True):
            if 'label' not in sample:
                raise UserError('--report: the test data have no labels')
            image = _classified(sample)
            if image.rank:
                image = replace(image, pixels=pixels.cpu().numpy().copy())
            self.note(image, image.score if image.rank else None)


def _classified(sample: dict) -> ClassifiedImage:
    scores = np.nan_to_num(sample['scores'].float().cpu().numpy(), nan=-1.0)
    label = int(sample['label'])
    # as TopAccuracy: of equal scores the label's counts as the last, and NaN is no hit
    own = scores[label]
    rank = len(scores) - 1 if own < 0 else int((scores >= own).sum()) - 1
    others = np.where(np.arange(len(scores)) == label, -np.inf, scores)
    said = int(others.argmax()) if rank else label
    return ClassifiedImage(
        str(sample.get('img_path') or ''), len(scores), label, said,
        max(0.0, float(scores[said])), max(0.0, float(own)), rank,
    )  # fmt: skip


def report_of_images(images: Sequence[ClassifiedImage], classes: Sequence[str]) -> Contents:
    """Finds out what a classifier gets wrong.

    Args:
        images: All images of the test.
        classes: Names, by label; classes of the model beyond them get numbers.

    Returns:
        What the report tells.
    """
    count = max(image.classes for image in images)
    # a folder may have a name that is no text, which figures cannot draw
    names = [str(name).encode(errors='replace').decode() for name in classes]
    names += [f'class_{k}' for k in range(len(names), count)]
    labels, said, ranks = np.array([(e.label, e.said, e.rank) for e in images], np.int64).T
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (labels, said), 1)
    in_five = np.bincount(labels[ranks < 5], minlength=len(names)) if count > FEW else None
    rows = _rows(confusion, in_five, names)
    mistakes = sorted(
        (k for k, image in enumerate(images) if image.rank), key=lambda k: -images[k].score
    )
    calls = [image.name or f'image {k} of the test data' for k, image in enumerate(images)]
    return Contents(
        summary=_summary(confusion, in_five, names),
        columns=COLUMNS if in_five is None else (*COLUMNS, TOP5),
        classes=rows,
        pictures=[
            Picture(
                'confusion', confusion_matrix(confusion, names),
                'A row is a class of the labels, a column what the model says; shares of the row.',
            )
        ],
        pairs=[
            Pair(calls[k], _words(images[k], names), _drawn(images[k].pixels))
            for k in mistakes[:PAIRS]
            if _is_drawable(images[k].pixels)
        ],
        doubts=[f'{calls[k]}: {_words(images[k], names)}' for k in _doubts(images)],
        numbers=dict(
            confusion=confusion,
            mistakes=[
                dict(
                    image=calls[k], label=names[images[k].label], said=names[images[k].said],
                    score=images[k].score, label_score=images[k].label_score,
                )
                for k in mistakes
            ],
        ),
    )  # fmt: skip


def _rows(
    confusion: np.ndarray, in_five: np.ndarray | None, names: Sequence[str]
) -> list[list[str | float | None]]:
    labelled, said, right = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    rows: list[list[str | float | None]] = []
    for k, name in enumerate(names):
        row: list[str | float | None] = [
            name, int(labelled[k]), _share(2 * right[k], labelled[k] + said[k], labelled[k]),
            _share(right[k], labelled[k]), _share(right[k], said[k]),
        ]  # fmt: skip
        if in_five is not None:
            row.append(_share(in_five[k], labelled[k]))
        rows.append(row)
    return sorted(rows, key=lambda row: (row[2] is None, row[2] or 0.0))


def _share(part: int, whole: int, needed: int = 1) -> float | None:
    return float(part / whole) if whole and needed else None


def _summary(confusion: np.ndarray, in_five: np.ndarray | None, names: Sequence[str]) -> list[str]:
    total, labelled = confusion.sum(), confusion.sum(1)
    right = confusion.diagonal()
    five = '' if in_five is None else (
        f', and of {100 * in_five.sum() / total:.1f} % the label has one of the five highest scores'
    )  # fmt: skip
    known = labelled > 0
    mean = (right[known] / labelled[known]).mean()
    sentences = [
        f'{100 * right.sum() / total:.1f} % of the {total} images are right{five}.',
        f'Mean over the {known.sum()} classes that are labelled: {100 * mean:.1f} %.',
    ]
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    if wrong.any():
        k, taken = np.unravel_index(int(wrong.argmax()), wrong.shape)
        sentences.append(
            f'Most often confused: {names[k]} is taken for {names[taken]} '
            f'({wrong[k, taken]} of {labelled[k]} images).'
        )
    return sentences


def _words(image: ClassifiedImage, names: Sequence[str]) -> str:
    return (
        f'labelled {names[image.label]} ({image.label_score:.2f}), the model says '
        f'{names[image.said]} ({image.score:.2f})'
    )


def _doubts(images: Sequence[ClassifiedImage]) -> list[int]:
    """Returns which labels are perhaps wrong, the surest first.

    As in confident learning (arXiv 1911.00068): another class scores as high at least as that class
    does in the mean over the images that are labelled so.
    """
    labels = np.array([image.label for image in images])
    own = np.array([image.label_score for image in images])
    counts = np.bincount(labels)
    usual = np.bincount(labels, own) / np.maximum(counts, 1)
    doubtful = [
        k
        for k, image in enumerate(images)
        if image.rank
        and image.said < len(counts)
        and counts[image.said]
        and image.score >= usual[image.said]
    ]
    return sorted(doubtful, key=lambda k: images[k].label_score - images[k].score)[:DOUBTS]


def _is_drawable(pixels: np.ndarray | None) -> bool:
    return pixels is not None and pixels.dtype == np.uint8 and pixels.shape[0] == 3


def _drawn(pixels: np.ndarray) -> np.ndarray:
    """Returns H, W, 3 in blue, green, red, small pictures a whole number of times as large."""
    picture = np.ascontiguousarray(pixels[::-1].transpose(1, 2, 0))
    times = -(-SHOWN // picture.shape[0])
    return cv2.resize(picture, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST)
