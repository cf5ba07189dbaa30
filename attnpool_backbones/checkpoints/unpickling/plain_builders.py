"""Builds containers, sets and bytes; keys are plain, and quick to look up."""

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any

import torch

from attnpool_backbones.checkpoints.errors import DamagedCheckpoint, UnsafeCheckpoint
from attnpool_backbones.checkpoints.unpickling.limits import BYTES_AN_ENTRY
from attnpool_backbones.checkpoints.unpickling.stand_ins import refuse_name

if TYPE_CHECKING:
    from attnpool_backbones.checkpoints.unpickling.machine import PickleReader

_SAFE_INTEGERS = 2**61 - 1  # smaller ones have hash values of their own
_MAX_KEY_ITEMS = 8


def add_items(reader: 'PickleReader', items: list[Any]) -> None:
    """Adds items to the list on the stack."""
    target = reader.stack[-1]
    if type(target) is not list:
        raise DamagedCheckpoint('broken pickle (items for something that is no list)')
    target.extend(items)


def add_entries(reader: 'PickleReader', items: list[Any]) -> None:
    """Adds keys and values to the dict on the stack."""
    target = reader.stack[-1]
    if type(target) not in (dict, OrderedDict, Counter) or len(items) % 2:
        raise DamagedCheckpoint('broken pickle (entries for something that is no dict)')
    for key, value in zip(items[::2], items[1::2], strict=True):
        check_key(reader, key)
        target[key] = value


def add_members(reader: 'PickleReader', items: list[Any]) -> None:
    """Adds members to the set on the stack."""
    target = reader.stack[-1]
    if type(target) is not set:
        raise DamagedCheckpoint('broken pickle (members for something that is no set)')
    for item in items:
        check_key(reader, item)
        target.add(item)


def check_key(reader: 'PickleReader', key: Any) -> None:
    """Checks that a key is plain and quick to look up.

    Raises:
        UnsafeCheckpoint: It is not.
    """
    if key is None or isinstance(key, (str, bytes, bool, float)):
        return
    if isinstance(key, int) and abs(key) < _SAFE_INTEGERS:
        return
    if isinstance(key, (torch.dtype, torch.device)):
        return
    if isinstance(key, tuple) and len(key) <= _MAX_KEY_ITEMS:
        reader.step(1000)  # their hash values can be chosen
        if not any(isinstance(item, tuple) for item in key):
            for item in key:
                check_key(reader, item)
            return
    raise UnsafeCheckpoint(f'it has keys of type {type(key).__name__} that are no plain data')


def entries(reader: 'PickleReader', given: Any = ()) -> list[tuple[Any, Any]]:
    """Returns the arguments of a dict as a list of keys and values."""
    pairs = list(given.items() if isinstance(given, dict) else given)
    reader.charge(BYTES_AN_ENTRY * len(pairs))
    reader.step(len(pairs))
    for key, _ in pairs:
        check_key(reader, key)
    return [(key, value) for key, value in pairs]


def ordered_dict(reader: 'PickleReader', given: Any = ()) -> OrderedDict:
    """Builds an ordered dict."""
    reader.charge(5 * BYTES_AN_ENTRY)
    return OrderedDict(entries(reader, given))


def counter(reader: 'PickleReader', given: Any = ()) -> Counter:
    """Builds a counter, such as the milestones of a schedule."""
    return Counter(dict(entries(reader, given)))


def members(reader: 'PickleReader', given: Any = ()) -> list[Any]:
    """Returns the argument of a set as a list."""
    items = list(given)
    reader.charge(BYTES_AN_ENTRY * len(items))
    reader.step(len(items))
    for item in items:
        check_key(reader, item)
    return items


def encoded(reader: 'PickleReader', text: str, encoding: str = 'latin1') -> bytes:
    """Builds bytes from text, as old pickles store them."""
    if encoding not in ('latin1', 'latin-1'):
        refuse_name(f'_codecs.encode with {encoding!r}')
    reader.charge(len(text))
    return text.encode('latin1')


def plain_bytes(reader: 'PickleReader', content: Any = b'', encoding: str = 'latin1') -> bytes:
    """Builds bytes."""
    if isinstance(content, str):
        return encoded(reader, content, encoding)
    if not isinstance(content, bytes):
        refuse_name(f'bytes({type(content).__name__})')
    reader.charge(len(content))
    return bytes(content)


def byte_array(reader: 'PickleReader', content: Any = b'', encoding: str = 'latin1') -> bytearray:
    """Builds a byte array."""
    return bytearray(plain_bytes(reader, content, encoding))
