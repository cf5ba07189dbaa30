"""Reads the weights out of a checkpoint file without ever running code from it."""

import hashlib
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from attnpool_backbones.checkpoints.containers import read_container
from attnpool_backbones.checkpoints.errors import (
    CheckpointError,
    DamagedCheckpoint,
    NoCheckpoint,
    UnsafeCheckpoint,
)
from attnpool_backbones.checkpoints.fetching import fetch, local_copy, published_hash, resolve
from attnpool_backbones.checkpoints.finite_bits import TypedMemory
from attnpool_backbones.checkpoints.finite_weights import require_finite_weights
from attnpool_backbones.checkpoints.known_formats import recognise
from attnpool_backbones.checkpoints.message_texts import list_content, list_names
from attnpool_backbones.checkpoints.plain_history import restore_histories, without_functions
from attnpool_backbones.checkpoints.source import Source
from attnpool_backbones.checkpoints.wrapped_names import below, find_prefix, without_wrappers

__all__ = [
    'explained',
    'find_state_dict',
    'read_checkpoint',
    'read_content',
    'read_state_dict',
    'strip_prefixes',
]

# Where training scripts put the weights, and their moving average, in a checkpoint.
_CONTAINERS = ('state_dict', 'model', 'model_state_dict', 'module', 'net')
_EMA_CONTAINERS = ('state_dict_ema', 'model_ema')
_HASHED = 2**20  # bytes at once


def read_checkpoint(
    path: str | PathLike,
    *,
    prefix: str | None = None,
    ema: bool = False,
    map_location: str | torch.device = 'cpu',
) -> dict[str, Tensor]:
    """Returns the state dict of a backbone from a checkpoint of any usual form.

    The weights may stand alone or under ``state_dict``, ``model``, ``module`` and the like, beside
    optimizers, counters and arguments; any other key, such as ``teacher``, counts as a prefix. What
    wrappers (``module.``, ``_orig_mod.``, ...) put into names is dropped; if some names start with
    ``backbone.`` (a detector, a segmentor, a classifier of OpenMMLab), only those are returned,
    without it. Otherwise, if no name is known, a prefix such as Lightning's ``model.`` is dropped
    if the names after it are.

    Args:
        path: File (``.pth``, ``.pt``, ``.pth.tar``, ``.safetensors``, ...), ``http(s)://`` address
            (downloaded once into torch's hub folder), ``torchvision://`` or ``open-mmlab://``
            name, or any address that mmengine's file clients know.
        prefix: What comes before the backbone's names; other names are left out. Default:
            found automatically as described.
        ema: Whether the moving average of the weights is wanted. It is taken in any case from a
            file that has nothing else.
        map_location: Device of the returned tensors.

    Raises:
        FileNotFoundError: No such file.
        UnreachableCheckpoint: The address does not answer.
        UnsafeCheckpoint: The file asks for code to be run, or for far more memory than it has.
        DamagedCheckpoint: Its bytes are not those that were written.
        CheckpointError: The file is no checkpoint, holds no weights, weights that are not finite
            numbers, no moving average although ``ema`` is set, or no name with ``prefix``.
    """
    finite: set[TypedMemory] = set()
    state_dict = read_state_dict(
        path, prefix=prefix, ema=ema, map_location=map_location, finite=finite
    )
    with explained(str(path)):
        require_finite_weights(state_dict, finite=finite)
    return state_dict


def read_state_dict(
    path: str | PathLike,
    *,
    prefix: str | None = None,
    ema: bool = False,
    map_location: str | torch.device = 'cpu',
    finite: set[TypedMemory] | None = None,
) -> dict[str, Tensor]:
    """Does what :func:`read_checkpoint` does, but does not look at the numbers.

    Args:
        path: As :func:`read_checkpoint` takes it, as what follows.
        prefix: Likewise.
        ema: Likewise.
        map_location: Likewise.
        finite: As :func:`read_content` takes it.
    """
    checkpoint = read_content(str(path), map_location, finite)
    state_dict = find_state_dict(checkpoint, ema=ema)
    if not state_dict:
        kind = 'moving average of weights' if ema else 'state dict'
        raise CheckpointError(f'no {kind} in {path}, which holds {list_content(checkpoint)}')
    names = list(state_dict)
    with explained(str(path)):
        state_dict = strip_prefixes(state_dict, prefix)
    if not state_dict:
        raise CheckpointError(
            f"no name with prefix '{prefix}' in {path}; its names are {list_names(names)}"
        )
    return state_dict


def find_state_dict(checkpoint: Any, *, ema: bool = False) -> dict[str, Tensor]:
    """Returns the weights inside of a checkpoint; an empty dict if there are none.

    Those of several models under keys of no usual name, such as DINO's ``student`` and ``teacher``,
    get the key before their names.

    Args:
        checkpoint: Content of the file.
        ema: Whether the moving average of the weights is wanted.
    """
    if not isinstance(checkpoint, Mapping):
        return {}
    # mmengine's EMAHook stores the average as the state dict and the plain weights beside it.
    ema = ema and not isinstance(checkpoint.get('ema_state_dict'), Mapping)
    # The containers come first: training checkpoints may have tensors (counters) beside them.
    for key in _EMA_CONTAINERS if ema else (*_CONTAINERS, *_EMA_CONTAINERS):
        if isinstance(checkpoint.get(key), Mapping):
            return find_state_dict(checkpoint[key])
    if ema:
        return {}
    weights = _named_tensors(checkpoint)
    if weights:
        return weights
    return {f'{part}.{name}': value for part, held in checkpoint.items()
            if isinstance(part, str) and isinstance(held, Mapping)
            for name, value in _named_tensors(held).items()}  # fmt: skip


def _named_tensors(content: Mapping) -> dict[str, Tensor]:
    return {k: v.detach() for k, v in content.items()
            if isinstance(k, str) and isinstance(v, Tensor)}  # fmt: skip


def strip_prefixes(
    state_dict: Mapping[str, Tensor], prefix: str | None = None
) -> dict[str, Tensor]:
    """Returns the backbone's part of a state dict, with the backbone's own names.

    Args:
        state_dict: Weights of a whole model or of a backbone.
        prefix: What comes before the backbone's names. Default: ``backbone.`` if any name
            has it, else what comes before the names of a known backbone, else nothing.
            Parts of wrappers (``module.``) need not be given.

    Raises:
        CheckpointError: Without a prefix given, there are several backbones; or a name is there
            with and without a wrapper, and the numbers differ.
    """
    if prefix:
        start = prefix if prefix.endswith('.') else f'{prefix}.'
        return without_wrappers(below(state_dict, start)) or below(
            without_wrappers(state_dict), start
        )
    stripped = without_wrappers(state_dict)
    while inner := below(stripped, 'backbone.'):
        stripped = inner
    if recognise(stripped) is None:
        found = find_prefix(stripped)
        return below(stripped, found) if found else stripped
    return stripped


def read_content(
    path: str, map_location: Any = 'cpu', finite: set[TypedMemory] | None = None
) -> Any:
    """Returns all that a checkpoint file holds.

    This is the only place where this package, and mmengine with it, read checkpoints.

    Args:
        path: As :func:`read_checkpoint` takes it.
        map_location: Device of the tensors. On ``'meta'`` only shapes are read and no checksums
            compared; functions and tables, which ``torch.load`` takes too, mean the CPU here.
        finite: Gets the addresses of memories whose numbers were seen to be finite, and their
            types, for :func:`~.finite_weights.require_finite_weights`; only as long as the content
            lives.

    Raises:
        FileNotFoundError: No such file.
        UnreachableCheckpoint: The address does not answer.
        CheckpointError: The file is no checkpoint, or not a safe or whole one.
    """
    is_device = isinstance(map_location, (str, torch.device))
    device = torch.device(map_location if is_device else 'cpu')
    source = fetch(path)
    with explained(path):
        try:
            read = read_container(source, shapes_only=device.type == 'meta')
        except OSError as error:  # of the disk, or of a place that a damaged file points to
            raise DamagedCheckpoint(error.strerror or str(error)) from None
        expected = published_hash(resolve(path))
        if expected is not None and not read.are_compared and device.type != 'meta':
            _compare_hash(source, expected)
    content = read.content
    restore_histories(content)
    if isinstance(content, dict) and 'param_schedulers' in content:
        content['param_schedulers'] = without_functions(content['param_schedulers'])
    if finite is not None and device.type == 'cpu':
        finite |= read.finite
    return content if device.type in ('cpu', 'meta') else _moved(content, device)


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Puts the file's name, and what follows for the user, into errors about its content."""
    try:
        yield
    except UnsafeCheckpoint as error:
        raise UnsafeCheckpoint(
            f'{path} was not loaded: {error}. If you trust its origin, save its state dict alone '
            'with the program that made it.'
        ) from None
    except NoCheckpoint as error:
        raise NoCheckpoint(f'{path} is no checkpoint: {error}{_place(path)}') from None
    except DamagedCheckpoint as error:
        raise DamagedCheckpoint(
            f'{path} could not be read as a checkpoint: {error}{_place(path)}'
        ) from None
    except CheckpointError as error:
        raise CheckpointError(f'{path} was not loaded: {error}') from None


def _place(path: str) -> str:
    """Words where the bytes of an address are, which are downloaded only once."""
    address = resolve(path)
    if not address.startswith(('http://', 'https://')):
        return ''
    return f'; the local copy is {local_copy(address)}, remove it to download the file again'


def _compare_hash(source: Source, expected: str) -> None:
    digest = hashlib.sha256()
    with source.open() as file:
        while block := file.read(_HASHED):
            digest.update(block)
    found = digest.hexdigest()[: len(expected)]
    if found != expected:
        raise DamagedCheckpoint(
            f'its name tells that its sha256 begins with {expected}, but it is {found}; if you '
            'trust it all the same, give it another name'
        )


def _moved(content: Any, device: torch.device) -> Any:
    """Returns content whose tensors are on a device; containers are changed in-place."""
    if isinstance(content, Tensor):
        return content.to(device)
    if isinstance(content, Namespace):
        _moved(vars(content), device)
    elif isinstance(content, dict):
        for key, value in content.items():
            content[key] = _moved(value, device)
    elif isinstance(content, list):
        content[:] = [_moved(value, device) for value in content]
    elif type(content) is tuple:
        return tuple(_moved(value, device) for value in content)
    return content
