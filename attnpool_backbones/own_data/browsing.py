"""Samples with their labels, as they lie on the disk and as training sees them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import set_random_seed

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.class_colours import distinct_colours
from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import type_name
from attnpool_backbones.html_page import html_page, pictures_with_words
from attnpool_backbones.inference.drawing import draw_boxes, draw_label_map
from attnpool_backbones.pictures import write_picture

__all__ = ['Sample', 'contact_sheet', 'draw_samples', 'write_page']

TILE = 320
"""Pixels of the longer side of a picture on the contact sheet."""
MARGIN = 8
CAPTION = 20
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LOADING = ('LoadImageFromFile', 'LoadAnnotations')


@dataclass(frozen=True)
class Sample:
    """An image drawn twice.

    Args:
        name: Of the file.
        before: H, W, 3 uint8 in blue, green, red, with the labels of the file.
        after: The same as the pipeline gives it to the model.
        labels: In words.
    """

    name: str
    before: np.ndarray
    after: np.ndarray
    labels: str


def draw_samples(cfg: Config, split: str, count: int, seed: int = 0) -> list[Sample]:
    """Draws samples that are spread over a data set.

    Args:
        cfg: The whole config.
        split: ``'train'``, ``'val'`` or ``'test'``.
        count: How many.
        seed: Of the augmentation and of the choice.

    Raises:
        UserError: If the config has no such split, or its data set cannot be drawn.
    """
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise UserError(f'{cfg.filename} has no {split}_dataloader')
    settings = loader.dataset
    set_random_seed(seed)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        augmented = DATASETS.build(_with_pipeline(settings, _labels_first))
        plain = DATASETS.build(_with_pipeline(settings, _only_loading))
    total = len(augmented)
    chosen = np.random.default_rng(seed).permutation(total)[: min(count, total)]
    samples = []
    for index in sorted(chosen.tolist()):
        before, after = plain[index], augmented[index]
        path = before['data_samples'].metainfo.get('img_path', f'{index}')
        drawn, words = _drawn(before, plain.metainfo)
        samples.append(Sample(Path(path).name, drawn, _drawn(after, plain.metainfo)[0], words))
    return samples


def _with_pipeline(dataset: Any, change: Callable[[list], list]) -> Any:
    """Copies the config of a data set, wrappers included, with another pipeline."""
    changed = dataset.copy()
    for key in ('dataset', 'datasets'):
        inner = changed.get(key)
        if inner is not None:
            changed[key] = (
                [_with_pipeline(part, change) for part in inner]
                if isinstance(inner, (list, tuple))
                else _with_pipeline(inner, change)
            )
    if changed.get('pipeline'):
        changed.pipeline = change(list(changed.pipeline))
    return changed


def _is_loading(step: Any) -> bool:
    return type_name(step) in _LOADING


def _only_loading(steps: list) -> list:
    return [*filter(_is_loading, steps), steps[-1]]


def _labels_first(steps: list) -> list:
    """Lets labels be resized with the image; tests keep theirs in the size of the file."""
    rest = [step for step in steps if not _is_loading(step)]
    return [*filter(_is_loading, steps), *rest]


def _drawn(packed: dict[str, Any], meta: dict[str, Any]) -> tuple[np.ndarray, str]:
    """Draws what the pipeline packed, and words its labels."""
    sample = packed['data_samples']
    image = np.ascontiguousarray(packed['inputs'].permute(1, 2, 0).numpy().astype(np.uint8))
    classes = meta['classes']
    if 'gt_sem_seg' in sample:
        labels = sample.gt_sem_seg.data[0].numpy().astype(np.uint8)
        palette = np.array(meta.get('palette') or distinct_colours(len(classes)), np.uint8)
        present = [label for label in np.unique(labels).tolist() if label < len(classes)]
        return draw_label_map(image, labels, palette), ', '.join(classes[k] for k in present)
    if 'gt_instances' not in sample:
        raise UserError('only boxes, masks and label maps can be drawn')
    truth = sample.gt_instances
    boxes = getattr(truth.bboxes, 'tensor', truth.bboxes).numpy()
    masks = truth.masks.to_ndarray().astype(bool) if 'masks' in truth else None
    labels = truth.labels.numpy()
    names = [classes[label] for label in labels.tolist()]
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    words = ', '.join(f'{count} {name}' for name, count in counts.items()) or 'no objects'
    return draw_boxes(image, boxes, labels, names, len(classes), masks), words


def contact_sheet(samples: Sequence[Sample], columns: int = 3) -> np.ndarray:
    """Puts all samples onto one picture, each before and after augmentation.

    Args:
        samples: What to show.
        columns: Pairs in a row.

    Returns:
        H, W, 3 uint8 in blue, green, red.
    """
    pairs = [_pair(sample) for sample in samples]
    height = max(pair.shape[0] for pair in pairs)
    width = max(pair.shape[1] for pair in pairs)
    columns = min(columns, len(pairs))
    rows = -(-len(pairs) // columns)
    sheet = np.full((rows * (height + MARGIN) + MARGIN, columns * (width + MARGIN) + MARGIN, 3),
                    255, np.uint8)  # fmt: skip
    for index, pair in enumerate(pairs):
        row, column = divmod(index, columns)
        top, left = row * (height + MARGIN) + MARGIN, column * (width + MARGIN) + MARGIN
        sheet[top : top + pair.shape[0], left : left + pair.shape[1]] = pair
    return sheet


def _pair(sample: Sample) -> np.ndarray:
    left, right = _tile(sample.before), _tile(sample.after)
    height = max(len(left), len(right))
    pair = np.full((height + CAPTION, 2 * TILE + MARGIN, 3), 255, np.uint8)
    pair[CAPTION : CAPTION + len(left), : left.shape[1]] = left
    pair[CAPTION : CAPTION + len(right), TILE + MARGIN : TILE + MARGIN + right.shape[1]] = right
    for start, text in ((0, sample.name), (TILE + MARGIN, 'augmented')):
        corner = start, CAPTION - 6
        cv2.putText(pair, text[-45:], corner, _FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return pair


def _tile(image: np.ndarray) -> np.ndarray:
    scale = TILE / max(image.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def write_page(samples: Sequence[Sample], folder: Path, title: str) -> Path:
    """Writes a page with all samples in their own size.

    Args:
        samples: What to show.
        folder: Gets ``index.html`` and the pictures.
        title: Of the page.

    Returns:
        The page.
    """
    figures = []
    for index, sample in enumerate(samples):
        names = []
        for kind in ('before', 'after'):
            name = f'samples/{index:04d}_{kind}.jpg'
            write_picture(folder / name, getattr(sample, kind))
            names.append(name)
        figures.append(pictures_with_words(names, f'{sample.name}: {sample.labels}'))
    page = folder / 'index.html'
    words = '<p>Left: the labels of the file. Right: what the model is trained on.</p>'
    write_atomically(html_page(title, [words, *figures]), page, flush=False)
    return page
