"""What the two formats of XML files have in common."""

import math
import re
from xml.etree import ElementTree

from attnpool_backbones.datasets.findings import Problem
from attnpool_backbones.own_data.folder import Folder
from attnpool_backbones.own_data.labels import problem

__all__ = ['malformed', 'number', 'parse_xml', 'root_tag']

_TAG = re.compile(rb'<([A-Za-z_][\w.-]*)')
_ENCODING = re.compile(rb'<\?xml[^>]*\sencoding\s*=\s*["\']([\w.-]+)["\']')
_HEAD = 4096  # bytes


def root_tag(folder: Folder, file: str) -> str:
    """Reads the name of the outermost element, whether or not the rest is well-formed."""
    with open(folder.path(file), 'rb') as opened:
        head = opened.read(_HEAD).replace(b'\0', b'')  # which UTF-16 has between the letters
    tag = _TAG.search(re.sub(rb'<!--.*?-->|<\?.*?\?>', b'', head, flags=re.DOTALL))
    return tag[1].decode() if tag else ''


def parse_xml(folder: Folder, file: str) -> ElementTree.Element:
    """Reads a file in the encoding that it says, which may be one of Chinese or Japanese text.

    Raises:
        ValueError: If it is damaged.
    """
    content = folder.path(file).read_bytes()
    said = _ENCODING.match(content)
    try:
        # expat knows no encoding of several bytes but Unicode's
        return ElementTree.fromstring(content.decode(said[1].decode()) if said else content)
    except (ElementTree.ParseError, LookupError) as error:
        raise ValueError(error) from error


def number(text: str | None) -> float:
    """Turns the text of an element or attribute into a finite number.

    Raises:
        ValueError: If it is none.
    """
    if text is None:
        raise ValueError('a coordinate is missing')
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'{text.strip()!r} is no finite number')
    return value


def malformed(where: str, error: ValueError) -> Problem:
    """Words that an object cannot be understood."""
    return problem('malformed label', where, error)
