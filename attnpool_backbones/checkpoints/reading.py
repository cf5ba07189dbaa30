"""Reads the weights out of a checkpoint file without ever running code from it."""

import pickle
import re
from collections.abc import Callable, Mapping
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

import mmengine
import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get as get_bytes
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import load_file as load_safetensors
from torch import Tensor

from attnpool_backbones.checkpoints.listing import list_content, list_names
from attnpool_backbones.checkpoints.safe_globals import register_safe_globals
from attnpool_backbones.command_line import UserError

# Where training scripts put the weights, and their moving average, in a checkpoint.
_CONTAINERS = ('state_dict', 'model', 'model_state_dict', 'module', 'net')
_EMA_CONTAINERS = ('state_dict_ema', 'model_ema')

# What DistributedDataParallel and torch.compile put in front of every name.
_WRAPPERS = ('module.', '_orig_mod.')

# mmengine's lists of addresses, by scheme.
_ADDRESS_LISTS = {
    'torchvision': 'torchvision_0.12.json',
    'modelzoo': 'torchvision_0.12.json',
    'open-mmlab': 'openmmlab.json',
    'openmmlab': 'openmmlab.json',
}


class CheckpointError(UserError, ValueError):
    """A checkpoint is damaged, of another kind, or not for the model it is given to."""


class UnreachableCheckpoint(UserError, OSError):
    """A checkpoint cannot be downloaded whole."""


class UnsafeCheckpoint(CheckpointError):
    """A checkpoint asks for code to be run, or holds objects instead of weights."""


def read_checkpoint(
    path: str | PathLike,
    *,
    prefix: str | None = None,
    ema: bool = False,
    map_location: str | torch.device = 'cpu',
) -> dict[str, Tensor]:
    """Returns the state dict of a backbone from a checkpoint of any usual form.

    The weights may stand alone or under ``state_dict``, ``model``, ``module`` and the like, beside
    optimizers, counters and arguments. ``module.`` in front of the names is dropped; if some names
    start with ``backbone.`` (a detector, a segmentor, a classifier of OpenMMLab), only those are
    returned, without it.

    Args:
        path: File (``.pth``, ``.pt``, ``.pth.tar``, ``.safetensors``, ...), ``http(s)://`` address
            (downloaded once into torch's hub folder), ``torchvision://`` or ``open-mmlab://``
            name, or any address that mmengine's file clients know.
        prefix: What stands in front of the backbone's names; other names are left out. Default:
            found automatically as described.
        ema: Whether the moving average of the weights is wanted. It is taken in any case from a
            file that has nothing else.
        map_location: Device of the returned tensors.

    Raises:
        FileNotFoundError: No such file.
        UnreachableCheckpoint: The address does not answer.
        UnsafeCheckpoint: The file asks for code to be run.
        CheckpointError: The file is no checkpoint, holds no weights, no moving average although
            ``ema`` is set, or no name with ``prefix``.
    """
    checkpoint = read_content(str(path), map_location)
    state_dict = find_state_dict(checkpoint, ema=ema)
    if not state_dict:
        kind = 'moving average of weights' if ema else 'state dict'
        raise CheckpointError(f'no {kind} in {path}, which holds {list_content(checkpoint)}')
    names = list(state_dict)
    state_dict = strip_prefixes(state_dict, prefix)
    if not state_dict:
        raise CheckpointError(
            f"no name with prefix '{prefix}' in {path}; its names are {list_names(names)}"
        )
    return state_dict


def find_state_dict(checkpoint: Any, *, ema: bool = False) -> dict[str, Tensor]:
    """Returns the weights inside of a checkpoint; an empty dict if there are none.

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
    return {k: v.detach() for k, v in checkpoint.items()
            if isinstance(k, str) and isinstance(v, Tensor)}  # fmt: skip


def strip_prefixes(
    state_dict: Mapping[str, Tensor], prefix: str | None = None
) -> dict[str, Tensor]:
    """Returns the backbone's part of a state dict, with the backbone's own names.

    Args:
        state_dict: Weights of a whole model or of a backbone.
        prefix: What stands in front of the backbone's names. Default: ``backbone.`` if any name
            has it, nothing otherwise. ``module.`` need not be given.
    """
    stripped = _strip_wrappers(state_dict)
    if prefix:
        start = prefix if prefix.endswith('.') else f'{prefix}.'
        chosen = _below(stripped, start) or _below(state_dict, start)
        return _strip_wrappers(chosen)
    while inner := _below(stripped, 'backbone.'):
        stripped = _strip_wrappers(inner)
    return stripped


def _strip_wrappers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stripped = dict(state_dict)
    while any(name.startswith(_WRAPPERS) for name in stripped):
        stripped = {
            next((name[len(w) :] for w in _WRAPPERS if name.startswith(w)), name): value
            for name, value in stripped.items()
        }
    return stripped


def _below(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}


def read_content(path: str, map_location: str | torch.device = 'cpu') -> Any:
    """Returns all that a checkpoint file holds.

    Args:
        path: As :func:`read_checkpoint` takes it.
        map_location: Device of the tensors.

    Raises:
        FileNotFoundError: No such file.
        UnreachableCheckpoint: The address does not answer.
        CheckpointError: The file is no checkpoint, or not a safe one.
    """
    scheme = urlparse(path).scheme if '://' in path else ''
    if scheme in _ADDRESS_LISTS:
        path, scheme = _listed_address(path, scheme), 'https'
    if scheme in ('http', 'https'):
        path, scheme = str(_download(path)), ''
    if scheme not in ('', 'file'):
        content = get_bytes(path)
        if path.endswith('.safetensors'):
            return _parse(path, lambda: parse_safetensors(content))
        return _parse(path, lambda: _load(BytesIO(content), map_location))

    file = Path(path.removeprefix('file://')).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f'no checkpoint at {file}')
    if file.suffix == '.safetensors':
        return _parse(path, lambda: load_safetensors(file, device=str(map_location)))
    return _parse(path, lambda: _load(file, map_location))


def _load(file: Path | BinaryIO, map_location: str | torch.device) -> Any:
    register_safe_globals()
    return torch.load(file, map_location=map_location, weights_only=True)


def _parse(path: str, load: Callable[[], Any]) -> Any:
    """Calls ``load`` and says in plain words what is wrong with the file."""
    try:
        return load()
    except pickle.UnpicklingError as error:
        refused = re.search(r'GLOBAL (\S+)|unsafe type ([^\s,]+)', str(error))
        if refused is None:
            raise CheckpointError(f'{path} is no checkpoint that torch can read') from None
        name = refused.group(1) or refused.group(2)
        raise UnsafeCheckpoint(
            f'{path} was not loaded: it wants to call {name}, which weights do not need. If you '
            f'trust its origin, save its state dict alone with the program that made it.'
        ) from None
    except (TypeError, ValueError) as error:
        # The stand-ins for numpy's and mmengine's objects refuse what is not plain data.
        raise UnsafeCheckpoint(f'{path} was not loaded: {error}') from error
    except (EOFError, LookupError, OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition('\n')[0]
        raise CheckpointError(f'{path} could not be read as a checkpoint: {reason}') from error


def _listed_address(path: str, scheme: str) -> str:
    name = path.partition('://')[2]
    known = mmengine.load(Path(mmengine.__file__).parent / 'hub' / _ADDRESS_LISTS[scheme])
    if name not in known:
        raise CheckpointError(f"unknown checkpoint '{path}'; known are {list_names(known)}")
    return known[name]


def _download(url: str) -> Path:
    """Returns the local copy of a file, downloaded by the first process if there is none yet."""
    file = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(url).path).name
    if get_rank() == 0:
        _fetch(url, file)
    barrier()
    _fetch(url, file, progress=False)  # on another machine of the job
    return file


def _fetch(url: str, file: Path, progress: bool = True) -> None:
    if file.is_file():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    published = re.search(r'-([0-9a-f]{8,})\.', file.name)
    try:
        torch.hub.download_url_to_file(url, str(file), published and published.group(1), progress)
    except (OSError, RuntimeError) as error:  # RuntimeError: not the bytes that the name tells
        raise UnreachableCheckpoint(
            f'{url} could not be downloaded: {error}. Put the file at {file}, or name your copy in '
            f'init_cfg (--cfg-options model.backbone.init_cfg.checkpoint=FILE); '
            f'init_cfg=None starts without pretrained weights'
        ) from error
