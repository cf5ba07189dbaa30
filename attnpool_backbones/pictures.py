"""Pictures on disk: OpenCV's own writer tells of no error, and ends the process at some names."""

from pathlib import Path

import cv2
import numpy as np

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.command_line import UserError

__all__ = ['encoded_picture', 'name_for_opencv', 'write_picture']


def encoded_picture(path: Path, picture: np.ndarray) -> bytes:
    """Returns the content of a picture in the format that the name of its file ends with.

    Args:
        path: The file, which is not written.
        picture: H, W or H, W, 3 in blue, green, red, uint8; or H, W uint16 for a PNG.

    Raises:
        UserError: The format has no place for such a picture, as JPEG above 65535 pixels a side.
    """
    try:
        is_encoded, content = cv2.imencode(path.suffix, picture)
    except cv2.error:
        is_encoded = False
    if not is_encoded:
        height, width = picture.shape[:2]
        raise UserError(f'{path}: {width}x{height} pixels cannot be written as {path.suffix}')
    return content.tobytes()


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a picture in the format that its name ends with, whole or not at all.

    Args:
        path: The file.
        picture: As :func:`encoded_picture` takes it.

    Raises:
        OSError: The file cannot be written.
        UserError: As of :func:`encoded_picture`.
    """
    write_atomically(encoded_picture(path, picture), path, flush=False)


def name_for_opencv(path: str | Path) -> str:
    """Returns the name of a file that OpenCV is to open itself.

    Raises:
        UserError: The name is no text.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f'{path}: the name is no text in UTF-8; OpenCV cannot take it') from error
    return str(path)
