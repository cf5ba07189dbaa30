"""Converts a checkpoint file of any known origin into one with this package's names."""

import hashlib
import io
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from attnpool_backbones.atomic_files import remove_stale_files, write_atomically
from attnpool_backbones.checkpoints.known_formats import FORMATS, recognise
from attnpool_backbones.checkpoints.message_texts import list_names
from attnpool_backbones.checkpoints.reading import read_checkpoint
from attnpool_backbones.checkpoints.report import ConvertReport
from attnpool_backbones.checkpoints.safetensors_files import BACKBONE, safetensors_bytes

SUFFIXES = ('.safetensors', '.pth', '.pt')
"""Endings of the files that can be written."""


def convert_file(
    source: str | PathLike,
    destination: str | PathLike,
    *,
    publish: bool = False,
    ema: bool = False,
) -> ConvertReport:
    """Writes the weights of a published checkpoint under this package's names.

    Optimizers and the like stay there; every tensor of the backbone, its pooling layer and its
    classifier is kept. The destination appears complete or not at all, and the same source always
    gives the same bytes.

    Args:
        source: As :func:`read_checkpoint` takes it.
        destination: File ending in ``.safetensors``, ``.pth`` or ``.pt``; its folder is made.
        publish: Adds ``-`` and the first 8 hexadecimal digits of the file's sha256 to its name.
        ema: Whether to take the moving average of the weights.

    Raises:
        FileNotFoundError: No such source.
        ValueError: A destination of another ending or that is an address, or a source that is no
            checkpoint of a family this package knows.
    """
    if '://' in str(destination):
        raise ValueError(f"'{destination}' is an address; name a file of this machine")
    destination = Path(destination)
    if destination.suffix not in SUFFIXES:
        raise ValueError(f"'{destination}' must end in one of {', '.join(SUFFIXES)}")
    raw = read_checkpoint(source, ema=ema)
    known = recognise(raw)
    if known is None:
        raise ValueError(
            f'{source} is of no known format; its names are {list_names(raw)}; '
            f'known are {list_names((f.name for f in FORMATS), count=len(FORMATS))}'
        )
    # Copies: files have no place for tensors that share memory.
    weights = {n: v.clone(memory_format=torch.contiguous_format)
               for n, v in known.convert(raw).items()}  # fmt: skip
    written = _write(weights, known.backbone, destination, publish)
    report = ConvertReport(str(source), str(written), known.name, known.backbone)
    for name in weights:
        if known.is_leftover(name):
            report.leftovers.append(name)
        else:
            (report.converted if known.is_known(name) else report.unexpected).append(name)
    return report


def _write(weights: dict[str, Tensor], backbone: str, destination: Path, publish: bool) -> Path:
    if destination.suffix == '.safetensors':
        content = safetensors_bytes(weights, {BACKBONE: backbone})
    else:
        # Through a file object: torch.save would write the name of a path into the file.
        file = io.BytesIO()
        torch.save({'meta': {'backbone': backbone}, 'state_dict': weights}, file)
        content = file.getvalue()
    if publish:
        digest = hashlib.sha256(content).hexdigest()
        destination = destination.with_stem(f'{destination.stem}-{digest[:8]}')
    remove_stale_files(destination.parent, destination.name)  # of a conversion that was killed
    write_atomically(content, destination)
    return destination
