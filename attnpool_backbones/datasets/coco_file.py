"""Reads an annotation file of COCO's format as training does, and tells why it cannot."""

import json
import os
import reprlib
from pathlib import Path
from typing import Any

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.findings import Found

__all__ = ['ENTRIES', 'encoding_fault', 'read_coco_file']

ENTRIES = dict(images='image', annotations='annotation', categories='category')
"""The lists of a COCO file, and what they list."""


def read_coco_file(path: str, found: Found, may_lack: frozenset[str] = frozenset()) -> Any:
    """Returns the lists of a COCO file, or None when there is nothing to go on with.

    A file in an encoding that training cannot read is reported and read all the same.

    Args:
        path: The file.
        found: Is told what is wrong.
        may_lack: Lists that need not be there.

    Raises:
        UserError: It is on storage other than a disk.
    """
    if '://' in path:
        raise UserError(f'{path}: only annotation files on a disk can be checked')
    if os.path.isdir(path):
        found('damaged annotation file', path, 'a folder')
        return None
    try:
        raw = Path(path).read_bytes()
        fault = encoding_fault(raw)
        if fault:
            found('annotation file that training cannot read', path, fault)
        content = json.loads(raw)
        if not isinstance(content, dict):
            raise TypeError(f'{type(content).__name__}, not a dict with images and annotations')
        listed = {
            name: content[name] for name in ENTRIES if name not in may_lack or name in content
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        found('damaged annotation file', path, repr(error))
        return None
    wrong = [f'{n} {reprlib.repr(x)}' for n, x in listed.items() if not isinstance(x, list)]
    if wrong:
        found('damaged annotation file', path, f'{", ".join(wrong)}, no list')
        return None
    return {name: listed.get(name, []) for name in ENTRIES}


def encoding_fault(raw: bytes) -> str:
    """Tells why training, which expects UTF-8, cannot read a text, nothing if it can.

    Args:
        raw: The file, or its first bytes.
    """
    encoding = json.detect_encoding(raw)
    if encoding == 'utf-8':
        return ''
    words = 'begins with a byte order mark' if encoding == 'utf-8-sig' else f'is in {encoding}'
    return f'{words}; save it as UTF-8 without a byte order mark'
