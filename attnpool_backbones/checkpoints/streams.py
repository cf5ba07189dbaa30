"""Reads what torch wrote before its zip files: five pickles and the bytes of the storages."""

import torch

from attnpool_backbones.checkpoints.errors import (
    DamagedCheckpoint,
    NoCheckpoint,
)
from attnpool_backbones.checkpoints.message_texts import printable
from attnpool_backbones.checkpoints.source import Source
from attnpool_backbones.checkpoints.storage_bytes import Contents, Part, fill, new_memory
from attnpool_backbones.checkpoints.unpickling import PickleReader, Storage

_MAGIC = 0x1950A86A20F9469CFC6C  # first value of torch's old format
_PROTOCOL = 1001


def read_stream(source: Source, shapes_only: bool) -> Contents:
    """Returns the content of a stream, which has no checksums; else as ``read_container``."""
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
            storages[key] = Storage(dtype, new_memory(count * dtype.itemsize, shapes_only))
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
            parts.append(Part(memory, offset + 8, None, key, storages[key].dtype))
            offset += 8 + memory.numel()
    if offset > source.size:
        raise DamagedCheckpoint(f'it is cut off: {offset - source.size} bytes are missing')
    return Contents(content, finite=frozenset() if shapes_only else fill(source, parts))
