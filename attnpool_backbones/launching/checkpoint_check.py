"""Whether a checkpoint is one, and of the model it is meant for, before a run starts with it.

mmengine ends in a traceback at a damaged file, and only warns about another model's.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from attnpool_backbones.checkpoints.errors import CheckpointError, CheckpointMismatch
from attnpool_backbones.checkpoints.listing import list_content, list_names, shape_text
from attnpool_backbones.checkpoints.reading import read_content
from attnpool_backbones.launching.errors import PreflightError

__all__ = ['Shapes', 'require_checkpoint', 'require_own_weights', 'stored_shapes']

Shapes = dict[str, torch.Size]


def require_checkpoint(path: str, option: str = '') -> None:
    """Checks that a checkpoint is there.

    Args:
        path: Its file, or an address, which is left to mmengine.
        option: The setting that names it, where the command line does not. Default: ``''``.

    Raises:
        PreflightError: If it is not, with the checkpoints that are.
    """
    if '://' in path or os.path.isfile(path):
        return
    message = missing_checkpoint(path)
    raise PreflightError(f'{option}: {message}' if option else message)


def missing_checkpoint(path: str) -> str:
    """Words the message about a checkpoint that is not there, with those that are."""
    file = Path(path).absolute()
    folder = file if file.is_dir() else file.parent
    lines = [
        f'{file} is a folder, not a checkpoint'
        if file.is_dir()
        else f'checkpoint not found: {file}'
    ]
    there = sorted(file.name for file in folder.glob('*.pth')) if folder.is_dir() else []
    if there:
        lines.append(f'that folder has: {", ".join(there)}')
    elif folder == file:
        lines.append('it has no .pth files')
    elif not folder.is_dir():
        lines.append(
            'its folder does not exist either; training writes checkpoints to work_dirs/CONFIG_NAME'
        )
    return '\n'.join(lines)


def stored_shapes(path: str) -> Shapes:
    """Reads a whole checkpoint of a detector or a segmentor.

    Args:
        path: Its file or address.

    Returns:
        Names and shapes of the weights that mmengine would load.

    Raises:
        CheckpointError: If it is damaged, unsafe or something else than a checkpoint of mmengine's.
    """
    content = read_content(path, 'meta')  # the run reads the numbers, this only their shapes
    weights = content.get('state_dict', content) if isinstance(content, Mapping) else {}
    if isinstance(weights, Mapping):
        shapes = {
            str(name).removeprefix('module.'): value.shape
            for name, value in weights.items()
            if isinstance(value, Tensor)
        }
        if shapes:
            return shapes
    raise CheckpointError(
        f'no state dict in {path}, which holds {list_content(content)}; '
        'it has to be a checkpoint that training wrote'
    )


def require_own_weights(model: nn.Module, stored: Shapes | None, path: str) -> None:
    """Checks that a checkpoint has at least half of a model's parameters, and of its backbone's.

    The backbone counts by itself, because detectors of all backbones have the same heads.

    Args:
        model (Module): As the runner built it.
        stored (dict | None): What :func:`stored_shapes` returned.
        path (str): The file, for the message.

    Raises:
        CheckpointMismatch: If it has fewer, by name and shape.
    """
    if stored is None:
        return
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    here = {name: parameter.shape for name, parameter in model.named_parameters()}
    for prefix in ('', 'backbone.'):
        wanted = [name for name in here if name.startswith(prefix)]
        lacking = [name for name in wanted if stored.get(name) != here[name]]
        if 2 * len(lacking) <= len(wanted):
            continue
        part = model.backbone if prefix else model
        foreign = [name for name, shape in stored.items() if here.get(name) != shape]
        shared = [f'{name} ({shape_text(stored[name])} there, {shape_text(here[name])} here)'
                  for name in lacking if name in stored]  # fmt: skip
        raise CheckpointMismatch(
            f'{path} has only {len(wanted) - len(lacking)} of the {len(wanted)} parameters of this '
            f'{type(part).__name__}, at least half are needed. It is of another model than the '
            f'config.\n'
            f'  only in the file: {list_names(n for n in foreign if n not in here) or "nothing"}\n'
            f'  not in the file: {list_names(n for n in lacking if n not in stored) or "nothing"}'
            + (f'\n  of other shapes: {list_names(shared)}' if shared else '')
        )
