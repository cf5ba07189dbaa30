"""From the address of a checkpoint to its bytes on this machine, without reading them yet."""

import hashlib
import os
import re
import stat
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import mmengine
import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get as get_bytes
from torch.hub import tqdm

from attnpool_backbones.atomic_files import unfinished_file
from attnpool_backbones.checkpoints.errors import (
    CheckpointError,
    MissingCheckpoint,
    UnreachableCheckpoint,
)
from attnpool_backbones.checkpoints.message_texts import list_names, printable
from attnpool_backbones.checkpoints.source import Source

__all__ = ['fetch', 'local_copy', 'published_hash', 'resolve']

# mmengine's lists of addresses, by scheme.
_ADDRESS_LISTS = {
    'torchvision': 'torchvision_0.12.json',
    'modelzoo': 'torchvision_0.12.json',
    'open-mmlab': 'openmmlab.json',
    'openmmlab': 'openmmlab.json',
    'mmcls': 'mmcls.json',
}
_RENAMED = 'deprecated.json'
_BLOCK = 2**20  # bytes at once
_PATIENCE = 60.0  # seconds without an answer

# What stands there instead of a file, by the test for it.
_OTHER_KINDS = (
    (stat.S_ISDIR, 'a folder'),
    (stat.S_ISFIFO, 'a pipe'),
    (stat.S_ISSOCK, 'a socket'),
    (stat.S_ISCHR, 'a device'),
    (stat.S_ISBLK, 'a device'),
)


def fetch(path: str) -> Source:
    """Returns where the bytes of a checkpoint are, after downloading it if need be.

    Args:
        path: File, ``file://``, ``http(s)://`` (downloaded once, to :func:`local_copy`),
            ``torchvision://``, ``open-mmlab://`` or ``mmcls://`` name, or any address that
            mmengine's file clients know.

    Raises:
        MissingCheckpoint: No such file.
        UnreachableCheckpoint: The address does not answer.
        CheckpointError: It is no file but a folder, a pipe or a device, or an unknown address.
    """
    path = resolve(path)
    scheme, separator, name = path.partition('://')
    if not separator:
        return Source(_regular_file(Path(os.path.expanduser(path))))
    if scheme == 'file':
        return Source(_regular_file(Path(name)))
    if scheme in ('http', 'https'):
        return Source(_regular_file(_download(path)))
    try:
        return Source(bytes(get_bytes(path)))
    except Exception as error:  # whatever a client of a storage raises
        cause = printable(str(error) or type(error).__name__)
        raise UnreachableCheckpoint(
            f'{path} could not be read ({cause}); addresses begin with http://, https://, '
            f'file://, {", ".join(f"{scheme}://" for scheme in _ADDRESS_LISTS)}, or belong to a '
            'storage that mmengine has a client for, such as s3://'
        ) from error


def resolve(path: str) -> str:
    """Returns the address that a ``torchvision://``, ``open-mmlab://`` or ``mmcls://`` name is for.

    Args:
        path: As :func:`fetch` takes it; others than such names stay as they are.

    Raises:
        CheckpointError: mmengine does not list the name.
    """
    scheme, separator, name = path.partition('://')
    if not separator or scheme not in _ADDRESS_LISTS:
        return path
    lists = Path(mmengine.__file__).parent / 'hub'
    known = mmengine.load(lists / _ADDRESS_LISTS[scheme])
    if name not in known and scheme.endswith('mmlab'):
        name = mmengine.load(lists / _RENAMED).get(name, name)
    if name not in known:
        raise CheckpointError(f"unknown checkpoint '{path}'; known are {list_names(known)}")
    return known[name]


def published_hash(path: str) -> str | None:
    """Returns the first digits of the sha256 that the name of a published file tells, if any.

    Dates, which names have at the same place, are none.
    """
    found = re.search(r'-([0-9a-f]{8,64})(\.\w+)+$', path.rpartition('/')[2])
    digits = found.group(1) if found else ''
    if not digits or re.fullmatch(r'(19|20)\d{6}', digits):
        return None
    return digits


def _regular_file(file: Path) -> Path:
    try:
        mode = os.stat(file).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise MissingCheckpoint(f'no checkpoint at {file}') from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null
        raise CheckpointError(f'{printable(str(file))} cannot be read: {error}') from None
    if stat.S_ISREG(mode):
        if not os.access(file, os.R_OK):
            raise CheckpointError(f'{file} cannot be read: no permission')
        return file
    kind = next((name for is_kind, name in _OTHER_KINDS if is_kind(mode)), 'no ordinary file')
    if kind == 'a folder':
        raise MissingCheckpoint(f'no checkpoint at {file}, which is a folder')
    raise CheckpointError(f'{file} is {kind}, not a file; a checkpoint is never read from one')


def local_copy(url: str) -> Path:
    """Returns where the local copy of an ``http(s)://`` address lies, or would lie.

    A name with a hash tells what is in the file. Others, such as ``model.safetensors``, are those
    of many files, so each address has a folder of its own.

    Raises:
        CheckpointError: It is no address of a file.
    """
    try:
        name = Path(urlparse(url).path).name
    except ValueError as error:
        raise CheckpointError(f'{printable(url)} is no address: {error}') from error
    if name in ('', '..'):
        raise CheckpointError(f'{url} does not name a file')
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    if published_hash(name) is None:
        folder /= hashlib.sha256(url.encode()).hexdigest()[:12]
    return folder / name


def _download(url: str) -> Path:
    """Returns the local copy of a file, downloaded by the first process if there is none yet."""
    file = local_copy(url)
    if get_rank() == 0:
        _fetch(url, file)
    barrier()
    _fetch(url, file, progress=False)  # on another machine of the job
    return file


def _fetch(url: str, file: Path, progress: bool = True) -> None:
    if os.path.lexists(file):
        return
    try:
        with unfinished_file(file) as part:
            _save(url, part, published_hash(file.name), progress)
    except (OSError, ValueError, HTTPException) as error:
        # of a malformed address, too
        raise UnreachableCheckpoint(
            f'{url} could not be downloaded: {error}. Put the file at {file}, or name your copy in '
            f'init_cfg (--cfg-options model.backbone.init_cfg.checkpoint=FILE); '
            f'init_cfg=None starts without pretrained weights'
        ) from error


def _save(url: str, part: Path, expected: str | None, progress: bool) -> None:
    """Downloads a file as torch does, but not less of it than the server tells.

    Raises:
        OSError: It ended before, or has another hash than its name tells.
    """
    digest, size = hashlib.sha256(), 0
    request = Request(url, headers={'User-Agent': 'torch.hub'})
    with urlopen(request, timeout=_PATIENCE) as answer, part.open('wb') as file:
        told = answer.headers.get('Content-Length')
        whole = None if told is None else int(told)
        with tqdm(
            total=whole, disable=not progress, unit='B', unit_scale=True, unit_divisor=1024
        ) as bar:
            while block := answer.read(_BLOCK):
                file.write(block)
                digest.update(block)
                size += len(block)
                bar.update(len(block))
    if whole is not None and size != whole:
        raise OSError(f'it ended after {size} of {whole} bytes')
    if expected is not None and not digest.hexdigest().startswith(expected):
        raise OSError(
            f'its name tells that its sha256 begins with {expected}, but it is {digest.hexdigest()}'
        )
