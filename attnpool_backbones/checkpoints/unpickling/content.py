"""What a pickle built: objects in place of their stand-ins, and how much it is written out."""

import argparse
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from attnpool_backbones.checkpoints.errors import DamagedCheckpoint, UnsafeCheckpoint
from attnpool_backbones.checkpoints.unpickling.limits import (
    BYTES_AN_ENTRY,
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_STEPS,
)
from attnpool_backbones.checkpoints.unpickling.stand_ins import (
    ArrayInFile,
    BufferInFile,
    Named,
    refuse_name,
)


def finished(content: Any) -> Any:
    """Returns the content with all objects in place of those on their way, measured.

    Raises:
        UnsafeCheckpoint: It holds something else than data, is nested too deep, or its parts
            stand in so many places that it would be huge written out.
    """
    sizes: dict[int, int] = {}
    open_ones: set[int] = set()

    def measure(value: Any, depth: int) -> int:
        if isinstance(value, (Tensor, np.ndarray, np.generic, torch.dtype, torch.device)):
            return 1
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise UnsafeCheckpoint('it holds a number of hundreds of digits')
        if value is None or isinstance(value, (bool, int, float, complex, HistoryBuffer)):
            return 1
        if isinstance(value, (str, bytes, bytearray)):
            return 1 + len(value) // BYTES_AN_ENTRY
        if isinstance(value, Named):
            refuse_name(value.name, 'holds')
        if id(value) in sizes:
            return sizes[id(value)]
        if id(value) in open_ones:
            raise UnsafeCheckpoint('it holds a container that contains itself')
        if depth > MAX_DEPTH:
            raise UnsafeCheckpoint(f'it is nested more than {MAX_DEPTH} levels deep')
        open_ones.add(id(value))
        total = 1
        for part in parts_of(value):
            total += measure(part, depth + 1)
            if total > MAX_STEPS:
                raise UnsafeCheckpoint(
                    f'it refers to its parts so often that it stands for more than {MAX_STEPS} '
                    'objects'
                )
        open_ones.remove(id(value))
        sizes[id(value)] = total
        return total

    content = settle(content, {}, 0)
    measure(content, 0)
    return content


def parts_of(value: Any) -> Iterator[Any]:
    """Yields the keys and values, items or attributes of a container.

    Raises:
        UnsafeCheckpoint: It is no container of plain data.
    """
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        yield from value
        yield from value.values()
        if getattr(value, '_metadata', None) is not None:
            yield value._metadata
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value
    else:
        refuse_name(type(value).__name__, 'holds')


def settle(value: Any, seen: dict[int, tuple[Any, Any]], depth: int) -> Any:
    """Returns a value with arrays and buffers in place of those that were on their way."""
    if isinstance(value, (ArrayInFile, BufferInFile)):
        if value.content is None:
            raise DamagedCheckpoint('broken pickle (an array without content)')
        return value.content
    if type(value) not in (dict, OrderedDict, list, tuple, argparse.Namespace):
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    if depth > MAX_DEPTH:
        raise UnsafeCheckpoint(f'it is nested more than {MAX_DEPTH} levels deep')
    # Kept beside its successor, so that no other object gets its id meanwhile.
    seen[id(value)] = value, value
    if type(value) is tuple:
        settled = tuple(settle(item, seen, depth + 1) for item in value)
        if any(a is not b for a, b in zip(value, settled, strict=True)):
            seen[id(value)] = value, settled
            return settled
    elif type(value) is list:
        value[:] = [settle(item, seen, depth + 1) for item in value]
    else:
        entries = vars(value) if isinstance(value, argparse.Namespace) else value
        for key, item in list(entries.items()):
            entries[key] = settle(item, seen, depth + 1)
    return value
