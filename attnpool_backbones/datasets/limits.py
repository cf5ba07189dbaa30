"""Inputs that would fill the memory or wait for ever, told by a look at kinds and sizes."""

import os
import stat
from collections.abc import Mapping
from typing import Any

from PIL import Image

from attnpool_backbones.command_line import UserError
from attnpool_backbones.registry import TRANSFORMS

__all__ = ['MAX_PIXELS', 'InputLimits', 'InputTooLarge', 'require_image_size', 'require_mask_size']

MAX_PIXELS = 2**28
"""Pixels of an image or a mask, for instance 16384x16384: 0.8 GB in colour."""


class InputTooLarge(UserError, ValueError):
    """An image or a mask is too large to be loaded, or is no ordinary file."""


def require_image_size(path: str, max_pixels: int = MAX_PIXELS) -> None:
    """Checks the header of an image file, without decoding it.

    Missing files and formats that Pillow does not know are left to the loader.

    Args:
        path: The image or label map.
        max_pixels: How many pixels it may have.

    Raises:
        InputTooLarge: It has more, or is a pipe or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode):
        raise InputTooLarge(f'{path} is no ordinary file, images are not read from others')
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours is asked for below
    try:
        with Image.open(path) as image:
            width, height = image.size
    except Exception:  # whatever the header of a damaged file makes Pillow raise
        return
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    require_pixels(path, width, height, max_pixels)


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
        numbers = [n for n in size if isinstance(n, (int, float))]
        if len(numbers) == 2:
            require_pixels(name, numbers[1], numbers[0], max_pixels)


def require_pixels(name: str, width: float, height: float, max_pixels: int) -> None:
    """Raises InputTooLarge if width times height are too many pixels."""
    if width * height > max_pixels:
        raise InputTooLarge(
            f'{name} has {width}x{height} pixels, more than the {max_pixels} that are loaded '
            f'(--cfg-options max_pixels={int(width * height)} allows it)'
        )


@TRANSFORMS.register_module()
class InputLimits:
    """First step of a pipeline: refuses images and masks that would fill the memory.

    Args:
        max_pixels: How many pixels an image, a label map or a mask may have. Default: 2**28.

    Raises:
        InputTooLarge: From its call, with the file.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self.max_pixels = max_pixels

    def __call__(self, results: Any) -> Any:
        """Looks at the files of a sample.

        Args:
            results: What the pipeline is given; of inferencers also a path or an array.

        Returns:
            The same.
        """
        files = results if isinstance(results, Mapping) else dict(img_path=results)
        for key in ('img_path', 'seg_map_path'):
            if isinstance(files.get(key), str):
                require_image_size(files[key], self.max_pixels)
        for instance in files.get('instances') or ():
            require_mask_size(
                instance.get('mask'), f'a mask of {files.get("img_path")}', self.max_pixels
            )
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(max_pixels={self.max_pixels})'
