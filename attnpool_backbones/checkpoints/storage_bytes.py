"""Brings bytes of a file into the memory of tensors, and compares their checksums on the way."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnpool_backbones.checkpoints.errors import DamagedCheckpoint
from attnpool_backbones.checkpoints.finite_bits import INFINITIES, TypedMemory, are_finite
from attnpool_backbones.checkpoints.message_texts import printable
from attnpool_backbones.checkpoints.source import Source
from attnpool_backbones.machine import usable_cores

try:
    # ten times as fast as zlib's, whose checksums would double the time of reading
    from isal.isal_zlib import crc32
except ImportError:  # no wheel for this machine
    from zlib import crc32

MAX_THREADS = 4
MIN_PARALLEL = 16 * 2**20  # bytes for which threads are worth their start
_CHUNK = 2**19  # bytes read at once: they stay in the processor's cache for the checksum


@dataclass(frozen=True)
class Part:
    """Bytes of a file that belong into a storage."""

    memory: Tensor
    offset: int
    crc: int | None
    """Their CRC-32; None if the file has none."""
    name: str
    dtype: torch.dtype
    """Type of the numbers that they are."""


@dataclass(frozen=True)
class Contents:
    """All of a checkpoint, and what is known about its numbers."""

    content: Any
    are_compared: bool = False
    """Whether they have been compared with a checksum."""
    finite: frozenset[TypedMemory] = frozenset()
    """Memories whose numbers were seen to be finite."""


def new_memory(size: int, shapes_only: bool) -> Tensor:
    """Returns bytes to be filled, or ones that are never filled, on the ``meta`` device."""
    return torch.empty(size, dtype=torch.uint8, device='meta' if shapes_only else 'cpu')


def copy(content: bytes, memory: Tensor) -> None:
    """Fills the memory of a storage."""
    if content:
        memory.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))


def fill(source: Source, parts: Iterable[Part]) -> frozenset[TypedMemory]:
    """Reads the bytes of storages and compares their checksums, in several threads.

    Returns:
        Those whose numbers are finite; looked at on the way, while they are in the processor's
        cache.
    """
    parts = sorted(parts, key=lambda part: part.offset)
    total = sum(part.memory.numel() for part in parts)
    workers = min(MAX_THREADS, usable_cores()) if total >= MIN_PARALLEL else 1
    if workers == 1:
        return frozenset(_fill_some(source, parts))
    # The longest first, each to the thread that has the least to do.
    shares: list[list[Part]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for part in sorted(parts, key=lambda part: -part.memory.numel()):
        least = loads.index(min(loads))
        shares[least].append(part)
        loads[least] += part.memory.numel()
    with ThreadPoolExecutor(workers) as pool:
        return frozenset(chain(*pool.map(lambda share: _fill_some(source, share), shares)))


def _fill_some(source: Source, parts: Sequence[Part]) -> list[TypedMemory]:
    finite = []
    with source.open() as file:
        for part in sorted(parts, key=lambda part: part.offset):
            file.seek(part.offset)
            view = memoryview(part.memory.numpy())
            crc, sound = 0, part.dtype in INFINITIES
            for start in range(0, len(view), _CHUNK):
                chunk = view[start : start + _CHUNK]
                if file.readinto(chunk) != len(chunk):
                    raise DamagedCheckpoint(f'{printable(part.name)} is cut off')
                if part.crc is not None:
                    crc = crc32(chunk, crc)
                if sound:
                    bits = np.frombuffer(chunk, INFINITIES[part.dtype][0])
                    sound = are_finite(bits, part.dtype)
            if sound:
                finite.append((part.memory.data_ptr(), part.dtype))
            if part.crc is not None and crc != part.crc:
                raise DamagedCheckpoint(
                    f'the checksum of {printable(part.name)} is {crc:08x}, not {part.crc:08x} as '
                    'written'
                )
    return finite
