"""The forms in which checkpoints are stored: torch's zip files and older streams, safetensors.

Sizes are compared before anything is inflated or allocated, and bytes with their checksums while
they are read: the CRC-32 of every member of a zip file, and that which this package puts into the
safetensors it writes.
"""

import json
import os
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import load_file as load_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from attnpool_backbones.checkpoints.errors import (
    CheckpointError,
    DamagedCheckpoint,
    NoCheckpoint,
    UnsafeCheckpoint,
)
from attnpool_backbones.checkpoints.message_texts import printable
from attnpool_backbones.checkpoints.unpickling import PickleReader, Storage

try:
    # ten times as fast as zlib's, whose checksums would double the time of reading
    from isal.isal_zlib import crc32
except ImportError:  # no wheel for this machine
    from zlib import crc32

__all__ = ['Source', 'read_container', 'safetensors_bytes']

MAX_INFLATION = 4
"""How many times the size of a zip file its members may have together."""
SPARE_BYTES = 64 * 2**20
"""What any file may have beyond that."""
MAX_PICKLE = 512 * 2**20
"""Bytes of a pickle; logs of millions of iterations need that much."""
MAX_TENSORS = 200_000
"""Tensors of a file of safetensors."""
MAX_DIRECTORY = 16 * 2**20
"""Bytes of a zip file's directory: about 200,000 tensors."""

CHECKSUM = 'attnpool_backbones.crc32'
"""Key of the checksum in the metadata of safetensors."""

MAX_THREADS = 4
MIN_PARALLEL = 16 * 2**20  # bytes for which threads are worth their start
_CHUNK = 2**19  # bytes read at once: they stay in the processor's cache for the checksum
_MAGIC = 0x1950A86A20F9469CFC6C  # first value of torch's old format
_PROTOCOL = 1001
_STARTS_OF_PICKLES = (b'\x80', b'c', b'(')  # of torch's, and of those that call at once
_LOCAL_HEADER = struct.Struct('<4s2xHH4xIIIHH')
_PADDING = struct.Struct('<H')
_SIZES_FOLLOW = 8  # flag: sizes and checksum are told after the bytes
_SMALL = 2**12  # bytes of members about the format
_HEADERS_OF_OTHERS = {
    b'<': 'it is a web page',
    b'version https://git-lfs': 'it is a pointer of Git LFS, not the file itself',
    b'\x1f\x8b': 'it is packed by gzip; unpack it first',
    b'7z\xbc\xaf': 'it is packed by 7-Zip; unpack it first',
    b'\x89HDF': 'it is an HDF5 file (Keras?)',
}


@dataclass(frozen=True)
class Source:
    """Where the bytes of a checkpoint are."""

    where: Path | bytes
    """A file, or all bytes."""

    def open(self) -> BinaryIO:
        """Opens it, at its beginning."""
        return BytesIO(self.where) if isinstance(self.where, bytes) else self.where.open('rb')

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.where) if isinstance(self.where, bytes) else self.where.stat().st_size


@dataclass(frozen=True)
class _Part:
    """Bytes of a file that belong into a storage."""

    memory: Tensor
    offset: int
    crc: int | None
    """Their CRC-32; None if the file has none."""
    name: str


def read_container(source: Source, *, shapes_only: bool = False) -> tuple[Any, bool]:
    """Reads all of a checkpoint.

    Args:
        source: Where it is.
        shapes_only: Whether tensors are wanted on the ``meta`` device: no numbers are read then,
            and no checksums compared.

    Returns:
        The content, and whether its numbers have been compared with a checksum.

    Raises:
        UnsafeCheckpoint: It asks for more than weights need: calls, or memory.
        DamagedCheckpoint: Its bytes are not all there or not the right ones.
        CheckpointError: It is no checkpoint, or of a form that this package does not read.
    """
    with source.open() as file:
        start = file.read(512)
    if not start:
        raise DamagedCheckpoint('it is empty')
    if start.startswith(b'PK\x03\x04'):
        return _read_zip(source, shapes_only)
    if len(start) > 8 and start[8:9] == b'{' and int.from_bytes(start[:8], 'little') < source.size:
        return _read_safetensors(source, shapes_only)
    for beginning, what in _HEADERS_OF_OTHERS.items():
        if start.lstrip().startswith(beginning):
            raise NoCheckpoint(what)
    if start[257:262] == b'ustar':
        raise CheckpointError('it is of the tar format that torch wrote before 2017')
    if start[:1] not in _STARTS_OF_PICKLES:
        raise NoCheckpoint('torch.save did not write it')
    return _read_stream(source, shapes_only), False


# ---------------------------------------------------------------------- torch's zip files


class _BoundedFile:
    """A file for ``zipfile`` of which no more is read at once than a directory may have."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, size: int = -1) -> bytes:
        """Reads, but not too much."""
        if size > MAX_DIRECTORY:
            raise UnsafeCheckpoint(f'its directory has more than {MAX_DIRECTORY // 2**20} MiB')
        return self.file.read(size)


def _read_zip(source: Source, shapes_only: bool) -> tuple[Any, bool]:
    with source.open() as file:
        try:
            with zipfile.ZipFile(_BoundedFile(file)) as archive:
                members = _checked_members(archive, source.size)
                root = _root_of(members)
                pickled = _inflated(archive, members[root + 'data.pkl'])
                order = members.get(root + 'byteorder')
                if (
                    order is not None
                    and _inflated(archive, order).decode('latin1') != sys.byteorder
                ):
                    raise CheckpointError('it was written on a machine of another byte order')
                content, parts = _read_members(pickled, members, root, source.size, shapes_only)
                if shapes_only:
                    return content, False
                stored = []
                memories = {member.filename: memory for memory, member in parts.values()}
                for name, member in members.items():
                    start = _start_of(file, member, source.size)
                    memory = memories.get(name)
                    if memory is not None and member.compress_type == zipfile.ZIP_STORED:
                        stored.append(_Part(memory, start, member.CRC, name))
                    elif memory is not None:
                        _copy(_inflated(archive, member), memory)
                    elif member.file_size <= _SMALL:
                        _inflated(archive, member)  # to compare its checksum
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as error:
            raise DamagedCheckpoint(printable(str(error))) from None
        except (NotImplementedError, UnicodeDecodeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise DamagedCheckpoint(printable(str(error))) from None
    _fill(source, stored)
    return content, all(member.CRC is not None for member in members.values())


def _checked_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Returns the members of a zip file by name, if inflating all of them is harmless."""
    members = {member.filename: member for member in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise UnsafeCheckpoint('its directory lists a member twice')
    if not any(member.CRC for member in members.values()):
        # torch was told not to compute checksums; None tells zipfile not to compare them
        for member in members.values():
            member.CRC = None
    total = 0
    for member in members.values():
        if member.flag_bits & 1:
            raise CheckpointError('it is encrypted')
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError('it is packed by a method that checkpoints do not use')
        if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
            raise DamagedCheckpoint(f'sizes of {printable(member.filename)} contradict each other')
        total += member.file_size
    if total > MAX_INFLATION * size + SPARE_BYTES:
        raise UnsafeCheckpoint(
            f'its {size / 1e6:.1f} MB would inflate to {total / 1e6:.1f} MB, weights do not shrink '
            'like that'
        )
    return members


def _inflated(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Returns the content of a member, never more than the directory tells."""
    with archive.open(member) as file:
        return file.read(member.file_size)  # compares the checksum at the end


def _root_of(members: dict[str, zipfile.ZipInfo]) -> str:
    """Returns the folder of a checkpoint inside of its zip file, with the slash."""
    roots = [m.group() for m in (re.match(r'[^/]+/(?=data\.pkl$)', name) for name in members) if m]
    if len(roots) != 1:
        raise NoCheckpoint('it is a zip file, but none that torch.save wrote')
    if roots[0] + 'constants.pkl' in members:
        raise UnsafeCheckpoint('it is a TorchScript program, not a checkpoint')
    if members[roots[0] + 'data.pkl'].file_size > MAX_PICKLE:
        raise UnsafeCheckpoint(f'its pickle has more than {MAX_PICKLE // 2**20} MiB')
    return roots[0]


def _read_members(
    pickled: bytes, members: dict[str, zipfile.ZipInfo], root: str, size: int, shapes_only: bool
) -> tuple[Any, dict[str, tuple[Tensor, zipfile.ZipInfo]]]:
    """Reads the pickle of a zip file; the storages it refers to are still to be filled."""
    parts: dict[str, tuple[Tensor, zipfile.ZipInfo]] = {}

    def find_storage(dtype: torch.dtype, address: tuple) -> Storage:
        key, _, count = address
        member = members.get(f'{root}data/{key}') if isinstance(key, str) else None
        if member is None or type(count) is not int:
            raise DamagedCheckpoint(f'the storage {printable(str(key))} is missing')
        if member.file_size != count * dtype.itemsize:
            raise DamagedCheckpoint(
                f'the storage {printable(key)} has {member.file_size} bytes instead of '
                f'{count * dtype.itemsize}'
            )
        if key not in parts:
            parts[key] = _new_memory(member.file_size, shapes_only), member
        return Storage(dtype, parts[key][0])

    return PickleReader(BytesIO(pickled), find_storage, size).read(), parts


def _start_of(file: BinaryIO, member: zipfile.ZipInfo, size: int) -> int:
    """Returns where the bytes of a member begin, after a look at what stands around them.

    torch leaves no byte of a file to chance, so damage shows even where it would do no harm.
    """
    name = printable(member.filename)
    damaged = DamagedCheckpoint(f'{name} is not where the directory tells, or what stands there')
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size:
        raise damaged
    mark, flags, method, crc, packed, unpacked, name_length, extra = _LOCAL_HEADER.unpack(header)
    start = member.header_offset + _LOCAL_HEADER.size + name_length + extra
    told = b'PK\x03\x04', member.flag_bits, member.compress_type, member.orig_filename.encode()
    if (mark, flags, method, file.read(name_length)) != told:
        raise damaged
    sizes = member.compress_size, member.file_size
    # 0 where they follow after the bytes, all ones where they do not fit
    if crc not in (0, member.CRC) or any(
        n not in (0, size, 2**32 - 1) for n, size in zip((packed, unpacked), sizes, strict=True)
    ):
        raise damaged
    padding = file.read(extra)
    if padding[:2] == b'FB' and padding[2:] != _PADDING.pack(extra - 4).ljust(extra - 2, b'Z'):
        raise damaged
    if start + member.compress_size > size:
        raise DamagedCheckpoint(f'{name} is cut off')
    if flags & _SIZES_FOLLOW and member.CRC is not None:
        file.seek(start + member.compress_size)
        after = file.read(24)
        values = member.CRC, *sizes
        if not any(
            after.startswith(struct.pack(form, b'PK\x07\x08', *values))
            for form in ('<4sIQQ', '<4sIII')
            if form == '<4sIQQ' or max(sizes) < 2**32
        ):
            raise damaged
    return start


# ---------------------------------------------------------------------- torch's older streams


def _read_stream(source: Source, shapes_only: bool) -> Any:
    storages: dict[str, Storage] = {}
    views: dict[str, Storage] = {}
    total = 0

    def find_storage(dtype: torch.dtype, address: tuple) -> Storage:
        nonlocal total
        key, _, count, *rest = address
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise DamagedCheckpoint('broken pickle (a storage without address)')
        if key not in storages:
            total += count * dtype.itemsize
            if total > source.size:
                raise DamagedCheckpoint(
                    f'its tensors need {total} bytes, but it has {source.size} in all'
                )
            storages[key] = Storage(dtype, _new_memory(count * dtype.itemsize, shapes_only))
        storage = storages[key]
        if not rest or rest[0] is None:
            return storage
        view_key, offset, length = rest[0]
        start, end = offset * dtype.itemsize, (offset + length) * dtype.itemsize
        if not 0 <= start <= end <= storage.memory.numel():
            raise DamagedCheckpoint('a storage looks beyond the end of another')
        if view_key not in views:
            views[view_key] = Storage(dtype, storage.memory[start:end])
        return views[view_key]

    def refuse_storage(dtype: torch.dtype, address: tuple) -> Storage:
        raise DamagedCheckpoint('it does not begin as torch.save begins a file')

    with source.open() as file:
        values = [PickleReader(file, refuse_storage, source.size).read()]
        if values != [_MAGIC]:
            raise NoCheckpoint('it is a pickle, but none that torch.save wrote')
        values += [PickleReader(file, refuse_storage, source.size).read() for _ in range(2)]
        if values[1] != _PROTOCOL:
            raise DamagedCheckpoint(f'it is of version {printable(str(values[1]))}')
        content = PickleReader(file, find_storage, source.size).read()
        keys = PickleReader(file, refuse_storage, source.size).read()
        if not isinstance(keys, list) or set(map(str, keys)) != set(storages):
            raise DamagedCheckpoint('the list of its storages does not fit')
        offset, parts = file.tell(), []
        for key in keys:
            memory, itemsize = storages[key].memory, storages[key].dtype.itemsize
            file.seek(offset)
            header = file.read(8)
            if len(header) < 8 or int.from_bytes(header, 'little') * itemsize != memory.numel():
                raise DamagedCheckpoint(f'the storage {printable(key)} is cut off or of other size')
            parts.append(_Part(memory, offset + 8, None, key))
            offset += 8 + memory.numel()
    if offset > source.size:
        raise DamagedCheckpoint(f'it is cut off: {offset - source.size} bytes are missing')
    if not shapes_only:
        _fill(source, parts)
    return content


# ---------------------------------------------------------------------- safetensors


def safetensors_bytes(weights: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Returns weights in the safetensors format, with a checksum in the metadata.

    Args:
        weights: Tensors by name.
        metadata: Texts to be stored along.
    """
    return to_safetensors(weights, metadata={**metadata, CHECKSUM: _checksum(weights)})


def _checksum(weights: dict[str, Tensor]) -> str:
    """Returns the CRC-32 of names, types, shapes and numbers, as text."""
    crc = 0
    for name in sorted(weights):
        value = weights[name]
        crc = crc32(f'{name} {value.dtype} {tuple(value.shape)}'.encode(), crc)
        crc = crc32(value.contiguous().reshape(-1).view(torch.uint8).numpy(), crc)
    return f'{crc:08x}'


def _read_safetensors(source: Source, shapes_only: bool) -> tuple[dict[str, Tensor], bool]:
    try:
        with source.open() as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), 'little')))
        if not isinstance(header, dict) or len(header) > MAX_TENSORS:
            raise UnsafeCheckpoint(f'it lists more than {MAX_TENSORS} tensors, or none')
        if isinstance(source.where, bytes):
            weights = parse_safetensors(source.where)
        else:
            weights = load_safetensors(source.where)
    except (SafetensorError, TypeError, ValueError, RecursionError, KeyError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise DamagedCheckpoint(printable(str(error))) from None
    if shapes_only:
        return {name: value.to('meta') for name, value in weights.items()}, False
    metadata = header.get('__metadata__')
    expected = metadata.get(CHECKSUM) if isinstance(metadata, dict) else None
    if expected is None:
        return weights, False
    found = _checksum(weights)
    if found != expected:
        raise DamagedCheckpoint(f'its checksum is {found}, not {printable(expected)} as written')
    return weights, True


# ---------------------------------------------------------------------- bytes into memory


def _new_memory(size: int, shapes_only: bool) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device='meta' if shapes_only else 'cpu')


def _copy(content: bytes, memory: Tensor) -> None:
    if content:
        memory.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))


def _fill(source: Source, parts: Iterable[_Part]) -> None:
    """Reads the bytes of storages and compares their checksums, in several threads."""
    parts = sorted(parts, key=lambda part: part.offset)
    total = sum(part.memory.numel() for part in parts)
    workers = min(MAX_THREADS, os.cpu_count() or 1) if total >= MIN_PARALLEL else 1
    if workers == 1:
        _fill_some(source, parts)
        return
    # The longest first, each to the thread that has the least to do.
    shares: list[list[_Part]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for part in sorted(parts, key=lambda part: -part.memory.numel()):
        least = loads.index(min(loads))
        shares[least].append(part)
        loads[least] += part.memory.numel()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda share: _fill_some(source, share), shares))


def _fill_some(source: Source, parts: Sequence[_Part]) -> None:
    with source.open() as file:
        for part in sorted(parts, key=lambda part: part.offset):
            file.seek(part.offset)
            view = memoryview(part.memory.numpy())
            crc = 0
            for start in range(0, len(view), _CHUNK):
                chunk = view[start : start + _CHUNK]
                if file.readinto(chunk) != len(chunk):
                    raise DamagedCheckpoint(f'{printable(part.name)} is cut off')
                if part.crc is not None:
                    crc = crc32(chunk, crc)
            if part.crc is not None and crc != part.crc:
                raise DamagedCheckpoint(
                    f'the checksum of {printable(part.name)} is {crc:08x}, not {part.crc:08x} as '
                    'written'
                )
