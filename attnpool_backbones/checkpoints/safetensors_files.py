"""Reads and writes safetensors, with a checksum of this package's in the metadata."""

import json
from difflib import get_close_matches

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import load_file as load_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from attnpool_backbones.checkpoints.errors import (
    CheckpointError,
    DamagedCheckpoint,
    UnsafeCheckpoint,
)
from attnpool_backbones.checkpoints.message_texts import printable
from attnpool_backbones.checkpoints.source import Source
from attnpool_backbones.checkpoints.storage_bytes import Contents, crc32

MAX_TENSORS = 200_000
"""Tensors of a file of safetensors."""
BACKBONE = 'backbone'
"""Key of the type of the backbone, in the metadata of what the converter writes."""
CHECKSUM = 'attnpool_backbones.crc32'
"""Key of the checksum in the metadata of safetensors."""


def safetensors_bytes(weights: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Returns weights in the safetensors format, with a checksum in the metadata.

    The same arguments always give the same bytes.

    Args:
        weights: Tensors by name.
        metadata: Texts to be stored along.
    """
    # convolutions may lie in channels_last, which the format does not have
    weights = {name: value.contiguous() for name, value in weights.items()}
    return _with_sorted_metadata(
        to_safetensors(weights, metadata={**metadata, CHECKSUM: _checksum(weights)})
    )


def _with_sorted_metadata(content: bytes) -> bytes:
    """Puts the metadata in order, which safetensors writes in a random one."""
    end = 8 + int.from_bytes(content[:8], 'little')
    header = json.loads(content[8:end])
    header['__metadata__'] = dict(sorted(header['__metadata__'].items()))
    text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
    text += b' ' * (-len(text) % 8)  # the numbers stay aligned
    return len(text).to_bytes(8, 'little') + text + content[end:]


def _checksum(weights: dict[str, Tensor]) -> str:
    """Returns the CRC-32 of names, types, shapes and numbers, as text."""
    crc = 0
    for name in sorted(weights):
        value = weights[name]
        crc = crc32(f'{name} {value.dtype} {tuple(value.shape)}'.encode(), crc)
        crc = crc32(value.contiguous().reshape(-1).view(torch.uint8).numpy(), crc)
    return f'{crc:08x}'


def read_safetensors(source: Source, shapes_only: bool) -> Contents:
    """Reads a file of safetensors; arguments, result and errors as of ``read_container``."""
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
        return Contents({name: value.to('meta') for name, value in weights.items()})
    metadata = header.get('__metadata__')
    metadata = metadata if isinstance(metadata, dict) else {}
    expected = metadata.get(CHECKSUM)
    if expected is None and (BACKBONE in metadata or get_close_matches(CHECKSUM, metadata)):
        raise DamagedCheckpoint('the checksum that this package writes into its files is missing')
    if expected is None:
        return Contents(weights)
    found = _checksum(weights)
    if found != expected:
        raise DamagedCheckpoint(f'its checksum is {found}, not {printable(expected)} as written')
    return Contents(weights, are_compared=True)
