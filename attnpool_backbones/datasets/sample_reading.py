"""Reads images, masks and annotations by the pipeline that training reads them by."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from PIL import Image

from attnpool_backbones.datasets.bit_depth import (
    IGNORED,
    WIDE_IGNORED,
    image_depth_fault,
    is_wide,
    wide_top,
)
from attnpool_backbones.datasets.findings import Problem
from attnpool_backbones.datasets.limits import (
    MAX_PIXELS,
    InputTooLarge,
    require_image_size,
    require_mask_size,
    without_pillow_limit,
)
from attnpool_backbones.datasets.orientation import UPRIGHT, orientation_of

__all__ = ['IGNORED', 'Labels', 'Sample', 'read_sample']

ORIENTATIONS = range(2, 9)
PAGED = ('TIFF', 'GIF', 'PNG', 'WEBP')
"""Formats of Pillow whose files may have several pictures that are all meant."""


@dataclass(frozen=True)
class Labels:
    """Which labels the maps of a segmentation may have.

    Args:
        classes: How many classes there are; loaded labels count from 0.
        top: The highest label of a class in the files.
        ignored: Loaded labels that stand for no class.
    """

    classes: int
    top: int
    ignored: frozenset[int] = frozenset({IGNORED})


@dataclass(frozen=True)
class Sample:
    """An image of a data set, and what its pipeline is given.

    Args:
        split: 'train', 'val' or 'test'.
        info: What the pipeline starts from, with `img_path`.
        transforms: The steps of the pipeline.
        size: Width and height in pixels, as annotated.
        labels: What a label map may have, if there is one.
        names: What to call each of `info['instances']`.
        max_pixels: How many pixels an image, a label map or a mask may have. Default: 2**28.
    """

    split: str
    info: dict[str, Any]
    transforms: Sequence[Callable] = ()
    size: tuple[int, int] | None = None
    labels: Labels | None = None
    names: tuple[str, ...] = ()
    max_pixels: int = MAX_PIXELS


@dataclass
class Reading:
    """What is known of a sample while its pipeline runs."""

    sample: Sample
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    orientation: int = UPRIGHT
    file_format: str | None = None
    top: int | None = None
    """Highest value of an image of 16 bits."""
    raw_labels: np.ndarray | None = None

    def found(self, kind: str, item: object, detail: str) -> None:
        self.problems.append(Problem(self.sample.split, kind, str(item), detail))

    def noted(self, kind: str, item: object, detail: str) -> None:
        self.notes.append(Problem(self.sample.split, kind, str(item), detail))


def read_sample(sample: Sample) -> tuple[list[Problem], list[Problem]]:
    """Reads a sample's files to their ends and runs its pipeline.

    Args:
        sample: The sample.

    Returns:
        What is wrong, and what only the owner of the data can tell.
    """
    reading = Reading(sample)
    image_is_whole = _is_whole(reading, 'image', sample.info['img_path'])
    mask = sample.info.get('seg_map_path') if sample.labels is not None else None
    mask_is_whole = mask is None or _is_whole(reading, 'mask', mask)
    if image_is_whole:
        _run(reading, with_mask=mask_is_whole)
    elif mask is not None and mask_is_whole:
        _check_label_map(reading, _only_label_map(sample))
    return reading.problems, reading.notes


def _is_whole(reading: Reading, name: str, path: str) -> bool:
    """Reads a file by Pillow, since OpenCV fills what was cut off with grey and says nothing."""
    if not os.path.isfile(path):
        reading.found(f'missing {name}', path, 'no such file')
        return False
    try:
        require_image_size(path, reading.sample.max_pixels)
    except InputTooLarge as error:
        reading.found(f'{name} too large', path, str(error))
        return False
    try:
        with without_pillow_limit(), Image.open(path) as image:
            if name == 'image':
                reading.file_format = image.format
                reading.orientation = orientation_of(image, path)
                wide = is_wide(image)  # told by what loading takes away
            image.load()
            if name == 'image' and wide:
                reading.top = wide_top(path)
            if name == 'mask':
                reading.raw_labels = np.asarray(image)
    except Image.UnidentifiedImageError as error:
        # the pipeline may know the format: it is asked next
        if os.path.getsize(path) == 0:
            reading.found(f'unreadable {name}', path, 'an empty file')
            return False
        reading.file_format = str(error)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reading.found(f'unreadable {name}', path, str(error))
        return False
    pages = _pages(path)
    if pages > 1:
        reading.noted(
            f'{name} of several pages', path, f'{pages} pages, of which the first is read'
        )
    return True


def _pages(path: str) -> int:
    """Counts the pages or frames of a file; 1 where the others are damaged."""
    try:
        with without_pillow_limit(), Image.open(path) as image:
            return image.n_frames if image.format in PAGED else 1
    except Exception:  # Pillow raises errors of any kind, of pages that nobody reads
        return 1


def _run(reading: Reading, with_mask: bool) -> None:
    """Runs the pipeline, looking at what its loading steps give."""
    sample = reading.sample
    results: Any = dict(sample.info)
    path = sample.info['img_path']
    if 'instances' in results:
        results['instances'] = [dict(instance) for instance in results['instances']]
    try:
        for instance in results.get('instances') or ():
            require_mask_size(instance.get('mask'), f'a mask of {path}', sample.max_pixels)
    except InputTooLarge as error:
        reading.found('mask too large', path, str(error))
        return
    for transform in sample.transforms:
        name = type(transform).__name__
        if not with_mask and name == 'LoadAnnotations':
            return
        try:
            results = transform(results)
        except Exception as error:  # transforms are anybody's code
            words = ' '.join(f'{name}: {type(error).__name__}: {error}'.split())
            if isinstance(error, cv2.error) and 'inv_scale' in words:
                height, width = results['ori_shape'][:2]
                words = f'{name} leaves no row or no column of {width}x{height} pixels; crop it'
            _report_failure(reading, name, words)
            return
        if results is None:
            if name.startswith(('Load', 'Filter')):
                reading.found('image that the pipeline leaves out', path, f'by {name}')
            return
        if name.startswith('LoadImage'):
            if not _check_image(reading, transform, results):
                return
        elif name == 'LoadAnnotations' and 'gt_ignore_flags' in results:
            _check_masks(reading, transform, results)
        elif name == 'LoadAnnotations' and sample.labels is not None:
            if not _check_label_map(reading, results):
                return


def _report_failure(reading: Reading, name: str, words: str) -> None:
    info = reading.sample.info
    if name.startswith('LoadImage'):
        kind = f' ({reading.file_format})' if reading.file_format else ''
        reading.found('unreadable image', info['img_path'], f'{words}{kind}')
    elif name == 'LoadAnnotations' and reading.sample.labels is not None:
        reading.found('unreadable mask', info['seg_map_path'], words)
    else:
        reading.found('image that the pipeline fails at', info['img_path'], words)


# ------------------------------------------------------------------ what the loading steps give


def _check_image(reading: Reading, transform: Any, results: dict) -> bool:
    """Looks at a loaded image; tells whether its annotations can belong to it."""
    sample, path = reading.sample, reading.sample.info['img_path']
    height, width = results['ori_shape'][:2]
    size = sample.size
    if size is not None and (width, height) != size:
        turned = ''
        if reading.orientation in ORIENTATIONS and (height, width) == size:
            turned = f', since it is turned by EXIF orientation {reading.orientation}'
        reading.found(
            'image of another size than annotated',
            path,
            f'{width}x{height} as it is loaded{turned}, annotated {size[0]}x{size[1]}',
        )
        return False
    if reading.orientation in ORIENTATIONS and _turns(transform):
        # a label map is never turned, so that one of the same size may be wrong, too
        if width == height or reading.orientation <= 4:
            reading.noted(
                'photo that is turned when it is loaded',
                path,
                f'EXIF orientation {reading.orientation}; its size does not tell whether the '
                'annotations are of the photo as stored or as shown: they have to be as shown',
            )
    _check_depth(reading, transform, results['img'])
    return True


def _turns(transform: Any) -> bool:
    flag = str(getattr(transform, 'color_type', 'color'))
    return flag != 'unchanged' and not flag.endswith('ignore_orientation')


def _check_depth(reading: Reading, transform: Any, image: np.ndarray) -> None:
    """Reports images of more than 8 bits that are loaded so that they cannot be trained on."""
    path = reading.sample.info['img_path']
    if image.dtype.kind in 'ui' and image.dtype != np.uint8:
        reading.found(
            'image of more than 8 bits',
            path,
            f'{image.dtype} up to {image.max()} as it is loaded, where mean and std of the model '
            'are for 0..255; load it with color_type="color" of OpenCV, or convert it to 8 bits',
        )
        return
    if image.dtype.kind == 'f' and not np.isfinite(image).all():
        reading.found('image with values that are no numbers', path, 'inf or nan')
        return
    if reading.top is not None:
        scaled = getattr(transform, 'imdecode_backend', None) != 'pillow'
        fault = image_depth_fault(reading.top, scaled)
        if fault:
            reading.found('image of more than 8 bits', path, fault)


def _check_masks(reading: Reading, transform: Any, results: dict) -> None:
    """Reports instances that the loader marks as to be ignored, which it does without a word."""
    instances = reading.sample.info.get('instances', ())
    flags = results['gt_ignore_flags']
    if len(flags) != len(instances):
        return
    for index, (flag, instance) in enumerate(zip(flags, instances, strict=True)):
        if not flag or instance.get('ignore_flag'):
            continue
        mask = instance.get('mask')
        by_polygons = getattr(transform, 'poly2mask', True) is False and isinstance(mask, dict)
        reading.found(
            'mask that training ignores',
            reading.sample.names[index],
            'run-length encoded, but LoadAnnotations(poly2mask=False) takes polygons alone'
            if by_polygons
            else 'LoadAnnotations cannot use it',
        )


def _only_label_map(sample: Sample) -> dict | None:
    """Loads a label map by itself."""
    for transform in sample.transforms:
        if type(transform).__name__ == 'LoadAnnotations':
            try:
                return transform(dict(sample.info))
            except Exception:  # what is wrong with the image is reported, this is told with it
                return None
    return None


def _check_label_map(reading: Reading, results: dict | None) -> bool:
    """Looks at a loaded label map; tells whether the pipeline can go on with it."""
    if results is None or 'gt_seg_map' not in results:
        return False
    sample, labels = reading.sample, reading.sample.labels
    path, loaded = sample.info['seg_map_path'], results['gt_seg_map']
    if loaded.ndim < 2:
        reading.found('mask of one row or column', path, 'which its loader cannot keep')
        return False
    if loaded.ndim > 2:
        reading.found('mask with several channels', path, f'{loaded.shape[-1]} channels')
        return False
    fits = True
    shape = results.get('ori_shape')
    if shape is not None and loaded.shape != tuple(shape[:2]):
        height, width = loaded.shape
        reading.found(
            'mask of another size than its image',
            path,
            f'{width}x{height}, image {shape[1]}x{shape[0]}'
            + (
                f' as it is loaded, turned by EXIF orientation {reading.orientation}'
                if reading.orientation in ORIENTATIONS
                else ''
            ),
        )
        fits = False
    raw = reading.raw_labels
    if raw is None or raw.shape != loaded.shape:
        raw = loaded
    wrong = loaded >= labels.classes
    for value in labels.ignored:
        wrong &= loaded != value
    # the loader keeps 8 bits of a label
    wrong |= (raw > IGNORED) & (raw != WIDE_IGNORED) | (raw < 0)
    if wrong.any():
        values = np.unique(raw[wrong]).tolist()
        reading.found(
            'mask with labels of no class', path, f'{values[:10]}, not in 0..{labels.top}'
        )
    return fits
