"""The EXIF orientation of photos, as OpenCV heeds it when it loads them."""

import os
import struct
from pathlib import Path

from PIL import ExifTags, Image

__all__ = ['UPRIGHT', 'orientation_of']

UPRIGHT = 1
_PNG_CHUNKS = 8
"""Where the parts of a PNG begin."""
_PNG_CHUNK = struct.Struct('>I4s')
"""How each begins: bytes of the content, kind."""
_MOST_EXIF = 2**20  # bytes


def orientation_of(image: Image.Image, path: str | Path) -> int:
    """Reads the EXIF orientation of an opened image, whose pixels are not decoded.

    Args:
        image: As Pillow opened it.
        path: The same file.

    Returns:
        1 for upright, also where the entry is damaged, to 8.
    """
    try:
        if image.format == 'TIFF':
            orientation = image.tag_v2.get(ExifTags.Base.Orientation)
        else:
            # OpenCV heeds no other entries; Pillow decodes a PNG to find more
            is_png = image.format == 'PNG'
            exif = Image.Exif()
            exif.load(_exif_of_png(path) if is_png else image.info.get('exif', b''))
            orientation = exif.get(ExifTags.Base.Orientation)
    except (OSError, SyntaxError, ValueError, struct.error):
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT


def _exif_of_png(path: str | Path) -> bytes:
    """Reads the EXIF entry, which may come before or after the pixels."""
    with open(path, 'rb') as file:
        file.seek(_PNG_CHUNKS)
        while len(head := file.read(_PNG_CHUNK.size)) == _PNG_CHUNK.size:
            length, kind = _PNG_CHUNK.unpack(head)
            if kind == b'eXIf':
                return file.read(min(length, _MOST_EXIF))
            file.seek(length + 4, os.SEEK_CUR)  # the content and its checksum
    return b''
