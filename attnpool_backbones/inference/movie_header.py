"""What the header of an MP4 or QuickTime file tells that OpenCV does not."""

import os
import struct
from typing import BinaryIO

__all__ = ['shown_seconds']

MOST_BOXES = 1000
"""That are passed over in search of one."""


def shown_seconds(path: str) -> float | None:
    """Returns how long a film is to be shown; None if its file has another format.

    A film that was trimmed without encoding it anew has frames that are not shown: edit lists leave
    them out, and counts of frames do not.

    Args:
        path: The file.
    """
    try:
        with open(path, 'rb') as file:
            end = os.fstat(file.fileno()).st_size
            movie = _find(file, b'moov', 0, end)
            header = movie and _find(file, b'mvhd', *movie)
            if not header:
                return None
            file.seek(header[0])
            # version, flags and two dates come before
            pattern = '>3x16xIQ' if file.read(1) == b'\1' else '>3x8xII'
            scale, duration = struct.unpack(pattern, file.read(struct.calcsize(pattern)))
    except (OSError, struct.error):
        return None
    # one that is written piece by piece tells 0
    return duration / scale if scale and duration else None


def _find(file: BinaryIO, kind: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Returns where the content of the first box of a kind begins and ends; None without one."""
    for _ in range(MOST_BOXES):
        if start + 8 > end:
            return None
        file.seek(start)
        size, found = struct.unpack('>I4s', file.read(8))
        content = start + 8
        if size == 1:
            (size,) = struct.unpack('>Q', file.read(8))
            content += 8
        elif size == 0:  # up to the end
            size = end - start
        if size < content - start:
            return None
        if found == kind:
            return content, min(start + size, end)
        start += size
    return None
