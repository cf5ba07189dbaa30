"""Inputs that would fill the memory or wait for ever, told by a look at kinds and sizes."""

import io
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.bit_depth import (
    image_depth_fault,
    is_wide,
    label_depth_fault,
    wide_top,
)
from attnpool_backbones.registry import TRANSFORMS

__all__ = [
    'BYTES_A_PIXEL',
    'MAX_PIXELS',
    'InputLimits',
    'InputTooLarge',
    'LostDepth',
    'require_depth',
    'require_header',
    'require_image_size',
    'require_mask_size',
    'require_pixels',
    'without_pillow_limit',
]

MAX_PIXELS = 2**28
"""Pixels of an image or a mask, for instance 16384x16384: 0.8 GB in colour."""
BYTES_A_PIXEL = 8
"""Of an image file, at most: four channels of 16 bits, not compressed."""
SIZES = (
    re.compile(rb'#\?.*?[-+]Y (?P<height>\d+) [-+]X (?P<width>\d+)\n', re.DOTALL),
    re.compile(rb'#\?.*?[-+]X (?P<width>\d+) [-+]Y (?P<height>\d+)\n', re.DOTALL),
    re.compile(rb'P7\n.*?WIDTH (?P<width>\d+)\n.*?HEIGHT (?P<height>\d+)\n', re.DOTALL),
    re.compile(rb'PF\s+(?P<width>\d+)\s+(?P<height>\d+)\s'),
)
"""How files begin that OpenCV reads, and Pillow does not: Radiance, PAM, PFM."""
HEADER = 4096  # bytes
PNG = struct.Struct('>16sIIB')
"""How a PNG begins: :data:`PNG_START`, width, height, bits a channel."""
PNG_START = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR'
DEPTHS = ('scaled', 'cut', 'kept')


class InputTooLarge(UserError, ValueError):
    """An image or a mask is too large to be loaded, or is no ordinary file."""


class LostDepth(UserError, ValueError):
    """An image or a label map has values that its loader would lose."""


@contextmanager
def without_pillow_limit() -> Iterator[None]:
    """Lets Pillow open images of any size: its limit is lower, and ours is asked for beside it.

    The limit is one of the process, so that as little as possible is to be done meanwhile.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def require_image_size(path: str, max_pixels: int = MAX_PIXELS) -> bool:
    """Checks the header of an image file, without decoding it.

    Missing files and unknown formats are left to the loader.

    Args:
        path: The image or label map.
        max_pixels: How many pixels it may have.

    Returns:
        Whether it has more than 8 bits a channel.

    Raises:
        InputTooLarge: It has more, or is a pipe or a device.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    if not stat.S_ISREG(status.st_mode):
        raise InputTooLarge(f'{path} is no ordinary file, images are not read from others')
    if status.st_size > BYTES_A_PIXEL * max_pixels:
        raise InputTooLarge(
            f'{path} has {status.st_size} bytes, more than an image of {max_pixels} pixels, which '
            'are loaded (max_pixels=N in the config or in --cfg-options allows more)'
        )
    try:
        # what is read of a PNG needs no buffer
        with open(path, 'rb', buffering=0) as file:
            return require_header(file, path, max_pixels)
    except OSError:
        return False


def require_header(file: BinaryIO | io.FileIO, name: str, max_pixels: int = MAX_PIXELS) -> bool:
    """Checks the header of an image, as :func:`require_image_size` does.

    Args:
        file: Its bytes.
        name: What to call it.
        max_pixels: How many pixels it may have.

    Returns:
        Whether it has more than 8 bits a channel.

    Raises:
        InputTooLarge: It has more.
    """
    first = file.read(PNG.size)
    if first.startswith(PNG_START) and len(first) == PNG.size:
        # a third of the time that Pillow takes, and label maps are all of this format
        _, width, height, bits = PNG.unpack(first)
        require_pixels(name, width, height, max_pixels)
        return bits > 8
    file.seek(0)
    file = io.BufferedReader(file) if isinstance(file, io.FileIO) else file
    try:
        with without_pillow_limit(), Image.open(file) as image:
            width, height = image.size
            wide = is_wide(image)
    except Exception:  # whatever the header of a damaged file makes Pillow raise
        file.seek(0)
        header = file.read(HEADER)
        for found in filter(None, (pattern.match(header) for pattern in SIZES)):
            require_pixels(name, int(found['width']), int(found['height']), max_pixels)
        return False
    require_pixels(name, width, height, max_pixels)
    return wide


def require_depth(path: str, scaled: bool = True, content: np.ndarray | None = None) -> None:
    """Checks that the loader of an image of more than 8 bits keeps what a model needs.

    Args:
        path: The image.
        scaled: As :func:`~attnpool_backbones.datasets.bit_depth.image_depth_fault` takes it.
        content: Its bytes, uint8, if it is no file; the path is what to call it then. Default:
            None, the file is read.

    Raises:
        LostDepth: It would be black, nearly black or cut off.
    """
    top = wide_top(path if content is None else content)
    fault = image_depth_fault(top, scaled) if top is not None else ''
    if fault:
        raise LostDepth(f'{path} has more than 8 bits: {fault}')


def require_mask_size(mask: Any, name: str, max_pixels: int = MAX_PIXELS) -> None:
    """Checks the size that a mask of run lengths tells, without decoding it.

    Args:
        mask: A mask of COCO: run lengths with a ``size``, or polygons, which need no memory.
        name: What to call it.
        max_pixels: How many pixels it may have.

    Raises:
        InputTooLarge: It has more.
    """
    size = mask.get('size') if isinstance(mask, Mapping) else None
    if isinstance(size, (list, tuple)) and len(size) == 2:
        height, width = size
        if isinstance(height, (int, float)) and isinstance(width, (int, float)):
            require_pixels(name, width, height, max_pixels)


def require_pixels(name: str, width: float, height: float, max_pixels: int) -> None:
    """Raises InputTooLarge if width times height are too many pixels."""
    if width * height > max_pixels:
        raise InputTooLarge(
            f'{name} has {width}x{height} pixels, more than the {max_pixels} that are loaded '
            f'(max_pixels={int(width * height)} in the config or in --cfg-options allows it)'
        )


@TRANSFORMS.register_module()
class InputLimits:
    """First step of a pipeline: refuses images and masks that would fill the memory.

    Those of 16 bits are refused, too, if their loader would lose what is in them: images that
    become nearly black, labels above 255.

    Args:
        max_pixels: How many pixels an image, a label map or a mask may have. Default: 2**28.
        depth: What the image's loader does with more than 8 bits: it keeps the upper ones,
            ``'scaled'``, cuts at 255, ``'cut'``, or returns them all, ``'kept'``. Default:
            ``'scaled'``.

    Raises:
        InputTooLarge: From its call, with the file.
        LostDepth: Likewise.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS, depth: str = 'scaled') -> None:
        if depth not in DEPTHS:
            raise ValueError(f'depth={depth!r} is none of {", ".join(DEPTHS)}')
        self.max_pixels = max_pixels
        self.depth = depth

    def __call__(self, results: Any) -> Any:
        """Looks at the files of a sample.

        Args:
            results: What the pipeline is given; of inferencers also a path or an array.

        Returns:
            The same.
        """
        files = results if isinstance(results, Mapping) else dict(img_path=results)
        image, labels = files.get('img_path'), files.get('seg_map_path')
        if isinstance(image, str) and require_image_size(image, self.max_pixels):
            if self.depth != 'kept':
                require_depth(image, scaled=self.depth == 'scaled')
        if isinstance(labels, str) and require_image_size(labels, self.max_pixels):
            with without_pillow_limit():
                fault = label_depth_fault(labels)
            if fault:
                raise LostDepth(f'{labels}: {fault}')
        name = f'a mask of {image}'
        for instance in files.get('instances') or ():
            require_mask_size(instance.get('mask'), name, self.max_pixels)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(max_pixels={self.max_pixels}, depth={self.depth!r})'
