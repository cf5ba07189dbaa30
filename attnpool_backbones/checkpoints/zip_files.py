"""Reads torch's zip files.

Sizes are compared before anything is inflated or allocated, and every byte with the CRC-32 of its
member.
"""

import re
import struct
import sys
import zipfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import torch
from torch import Tensor

from attnpool_backbones.checkpoints.errors import (
    CheckpointError,
    DamagedCheckpoint,
    NoCheckpoint,
    UnsafeCheckpoint,
)
from attnpool_backbones.checkpoints.message_texts import printable
from attnpool_backbones.checkpoints.source import Source
from attnpool_backbones.checkpoints.storage_bytes import Contents, Part, copy, fill, new_memory
from attnpool_backbones.checkpoints.unpickling import PickleReader, Storage
from attnpool_backbones.checkpoints.unpickling.limits import SPARE_BYTES

MAX_INFLATION = 4
"""How many times the size of a zip file its members may have together."""
MAX_PICKLE = 512 * 2**20
"""Bytes of a pickle; logs of millions of iterations need that much."""
MAX_DIRECTORY = 16 * 2**20
"""Bytes of a zip file's directory: about 200,000 tensors."""
_LOCAL_HEADER = struct.Struct('<4s2xHH4xIIIHH')
_PADDING = struct.Struct('<H')
_SIZES_FOLLOW = 8  # flag: sizes and checksum are told after the bytes
_SMALL = 2**12  # bytes of members about the format


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


def read_zip(source: Source, shapes_only: bool) -> Contents:
    """Reads a zip file; arguments, result and errors as of ``read_container``."""
    size = source.size
    with source.open() as file:
        try:
            with zipfile.ZipFile(_BoundedFile(file)) as archive:
                members = _checked_members(archive, size)
                root = _root_of(members)
                pickled = _inflated(archive, members[root + 'data.pkl'])
                order = members.get(root + 'byteorder')
                if (
                    order is not None
                    and _inflated(archive, order).decode('latin1') != sys.byteorder
                ):
                    raise CheckpointError('it was written on a machine of another byte order')
                content, parts = _read_members(pickled, members, root, size, shapes_only)
                if shapes_only:
                    return Contents(content)
                stored = []
                memories = {part.member.filename: part for part in parts.values()}
                for name, member in members.items():
                    start = _start_of(file, member, size)
                    part = memories.get(name)
                    if part is not None and member.compress_type == zipfile.ZIP_STORED:
                        stored.append(Part(part.memory, start, member.CRC, name, part.dtype))
                    elif part is not None:
                        copy(_inflated(archive, member), part.memory)
                    elif member.file_size <= _SMALL:
                        _inflated(archive, member)  # to compare its checksum
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as error:
            raise DamagedCheckpoint(printable(str(error))) from None
        except (NotImplementedError, UnicodeDecodeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise DamagedCheckpoint(printable(str(error))) from None
    finite = fill(source, stored)
    return Contents(content, all(m.CRC is not None for m in members.values()), finite)


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


@dataclass(frozen=True)
class _Member:
    """A member of a zip file that is to become a storage."""

    memory: Tensor
    member: zipfile.ZipInfo
    dtype: torch.dtype


def _read_members(
    pickled: bytes, members: dict[str, zipfile.ZipInfo], root: str, size: int, shapes_only: bool
) -> tuple[Any, dict[str, _Member]]:
    """Reads the pickle of a zip file; the storages it refers to are still to be filled."""
    parts: dict[str, _Member] = {}

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
            memory = new_memory(member.file_size, shapes_only)
            parts[key] = _Member(memory, member, dtype)
        return Storage(dtype, parts[key].memory)

    return PickleReader(BytesIO(pickled), find_storage, size).read(), parts


def _start_of(file: BinaryIO, member: zipfile.ZipInfo, size: int) -> int:
    """Returns where the bytes of a member begin, after a look at what stands around them.

    torch leaves no byte of a file to chance, so damage shows even where it would do no harm.
    """
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size:
        raise _displaced(member)
    mark, flags, method, crc, packed, unpacked, name_length, extra = _LOCAL_HEADER.unpack(header)
    start = member.header_offset + _LOCAL_HEADER.size + name_length + extra
    told = b'PK\x03\x04', member.flag_bits, member.compress_type, member.orig_filename.encode()
    if (mark, flags, method, file.read(name_length)) != told:
        raise _displaced(member)
    sizes = member.compress_size, member.file_size
    # 0 where they follow after the bytes, all ones where they do not fit
    if crc not in (0, member.CRC) or any(
        n not in (0, size, 2**32 - 1) for n, size in zip((packed, unpacked), sizes, strict=True)
    ):
        raise _displaced(member)
    padding = file.read(extra)
    if padding[:2] == b'FB' and padding[2:] != _PADDING.pack(extra - 4).ljust(extra - 2, b'Z'):
        raise _displaced(member)
    if start + member.compress_size > size:
        raise DamagedCheckpoint(f'{printable(member.filename)} is cut off')
    if flags & _SIZES_FOLLOW and member.CRC is not None:
        file.seek(start + member.compress_size)
        after = file.read(24)
        values = member.CRC, *sizes
        if not any(
            after.startswith(struct.pack(form, b'PK\x07\x08', *values))
            for form in ('<4sIQQ', '<4sIII')
            if form == '<4sIQQ' or max(sizes) < 2**32
        ):
            raise _displaced(member)
    return start


def _displaced(member: zipfile.ZipInfo) -> DamagedCheckpoint:
    name = printable(member.filename)
    return DamagedCheckpoint(f'{name} is not where the directory tells, or what stands there')
