"""The forms in which checkpoints are stored: torch's zip files and older streams, safetensors.

Sizes are compared before anything is inflated or allocated, and bytes with their checksums while
they are read: the CRC-32 of every member of a zip file, and that which this package puts into the
safetensors it writes.
"""

from attnpool_backbones.checkpoints.errors import (
    CheckpointError,
    DamagedCheckpoint,
    NoCheckpoint,
)
from attnpool_backbones.checkpoints.safetensors_files import read_safetensors
from attnpool_backbones.checkpoints.source import Source
from attnpool_backbones.checkpoints.storage_bytes import Contents
from attnpool_backbones.checkpoints.streams import read_stream
from attnpool_backbones.checkpoints.zip_files import read_zip

_STARTS_OF_PICKLES = (b'\x80', b'c', b'(')  # of torch's, and of those that call at once
_HEADERS_OF_OTHERS = {
    b'<': 'it is a web page',
    b'version https://git-lfs': 'it is a pointer of Git LFS, not the file itself',
    b'\x1f\x8b': 'it is packed by gzip; unpack it first',
    b'7z\xbc\xaf': 'it is packed by 7-Zip; unpack it first',
    b'{': 'it is JSON, such as the index of a checkpoint in several files; join them first',
    b'\x89HDF': 'it is an HDF5 file (Keras?)',
}


def read_container(source: Source, *, shapes_only: bool = False) -> Contents:
    """Reads all of a checkpoint.

    Args:
        source: Where it is.
        shapes_only: Whether tensors are wanted on the ``meta`` device: no numbers are read then,
            and no checksums compared.

    Returns:
        The content, and what is known about its numbers.

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
        return read_zip(source, shapes_only)
    if len(start) > 8 and start[8:9] == b'{' and int.from_bytes(start[:8], 'little') < source.size:
        return read_safetensors(source, shapes_only)
    for beginning, what in _HEADERS_OF_OTHERS.items():
        if start.lstrip().startswith(beginning):
            raise NoCheckpoint(what)
    if start[257:262] == b'ustar':
        raise CheckpointError(
            'it is a tar archive: unpack it first; torch wrote such files before 2017, which '
            'are not read'
        )
    if start[:1] not in _STARTS_OF_PICKLES:
        raise NoCheckpoint('torch.save did not write it')
    return read_stream(source, shapes_only)
