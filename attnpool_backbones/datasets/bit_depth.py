"""Images and label maps of more than 8 bits, of which loaders keep 8: what must not be lost."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

__all__ = ['IGNORED', 'image_depth_fault', 'is_wide', 'label_depth_fault', 'wide_top']

IGNORED = 255
"""Label of pixels that no loss and no metric counts."""
WIDE_IGNORED = 65535
"""The same in label maps of 16 bits: cut to 8 bits it is 255."""
TWELVE_BITS = 4095
WIDE_MODES = ('I', 'I;16', 'I;16L', 'I;16B', 'I;16N', 'F')
"""Modes of Pillow for one channel of more than 8 bits."""


def is_wide(image: Image.Image) -> bool:
    """Tells by the header of an opened image whether a channel has more than 8 bits."""
    if image.mode in WIDE_MODES:
        return True
    # Pillow keeps 8 bits of several wide channels; how it is going to unpack them tells
    for tile in getattr(image, 'tile', ()):
        arguments: Any = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(word, str) and ';16' in word for word in arguments):
            return True
        if tile[0] == 'ppm' and any(isinstance(n, int) and n > IGNORED for n in arguments):
            return True
    return False


def wide_top(image: str | Path | np.ndarray) -> int | None:
    """Returns the highest value of an image of 16 bits; None if it has no such values.

    Args:
        image: The file, or its bytes, uint8.
    """
    content = image if isinstance(image, np.ndarray) else np.fromfile(image, np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16:
        return None
    # a channel of opacity, which is dropped
    colours = image[..., :3] if image.ndim == 3 and image.shape[2] == 4 else image
    return int(colours.max(initial=0))


def image_depth_fault(top: int, scaled: bool = True) -> str:
    """Says what a loader loses of an image of 16 bits that a model needs.

    Args:
        top: Its highest value.
        scaled: Whether the loader keeps the upper 8 bits, as OpenCV does; Pillow cuts at 255.

    Returns:
        Empty if nothing.
    """
    if top <= IGNORED:
        return f'values up to {top} are loaded as 0' if scaled and top else ''
    if not scaled:
        return (
            f'values up to {top}, which the loader cuts at 255; imdecode_backend="cv2" scales them'
        )
    if top <= TWELVE_BITS:
        return (
            f'values up to {top} of 65535 become at most {top // 256} of 255: nearly black; '
            'convert it to 8 bits'
        )
    return ''


def label_depth_fault(path: str | Path) -> str:
    """Says which labels of a label map of more than 8 bits its loader would cut to others.

    Returns:
        Empty if none.
    """
    with Image.open(path) as image:
        labels = np.asarray(image)
    wrong = (labels > IGNORED) & (labels != WIDE_IGNORED) | (labels < 0)
    if not wrong.any():
        return ''
    return f'labels {np.unique(labels[wrong]).tolist()[:5]} do not fit into 8 bits'
