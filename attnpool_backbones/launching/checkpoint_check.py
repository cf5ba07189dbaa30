"""Whether a checkpoint is one, and of the model it is meant for, before a run starts with it.

mmengine ends in a traceback at a damaged file, and only warns about another model's.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from attnpool_backbones.checkpoints.door import load_from_checked_file
from attnpool_backbones.checkpoints.errors import CheckpointError
from attnpool_backbones.checkpoints.matching import (
    Shapes,
    as_loaded,
    names_in_model,
    require_whole_model,
    shapes_of,
)
from attnpool_backbones.checkpoints.message_texts import list_content
from attnpool_backbones.command_line import UserError
from attnpool_backbones.engine.wrapped_models import bare_model

__all__ = ['Shapes', 'require_checkpoint', 'require_own_weights', 'stored_classes', 'stored_shapes']


def require_checkpoint(path: str, option: str = '') -> None:
    """Checks that a checkpoint is there.

    Args:
        path: Its file, or an address, which is left to mmengine.
        option: The setting that names it, where the command line does not. Default: ``''``.

    Raises:
        UserError: If it is not, with the checkpoints that are.
    """
    if '://' in path or os.path.isfile(path):
        return
    message = missing_checkpoint(path)
    raise UserError(f'{option}: {message}' if option else message)


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
    """Looks at a whole checkpoint of a detector or a segmentor, without its numbers.

    Args:
        path: Its file or address.

    Returns:
        Names and shapes of the weights that mmengine would load.

    Raises:
        CheckpointError: If it is damaged, unsafe or something else than a checkpoint of mmengine's.
    """
    content = load_from_checked_file(path, 'meta')  # the run reads the numbers
    weights = content.get('state_dict', content) if isinstance(content, Mapping) else {}
    shapes = shapes_of(weights) if isinstance(weights, Mapping) else {}
    if not shapes:
        raise CheckpointError(
            f'no state dict in {path}, which holds {list_content(content)}; '
            'it has to be a checkpoint that training wrote'
        )
    return shapes


def stored_classes(path: str) -> tuple[str, ...]:
    """Returns the names of the classes that a checkpoint was trained on; none if it tells none.

    Args:
        path: Its file or address.
    """
    told = load_from_checked_file(path, 'meta')
    for key in ('meta', 'dataset_meta', 'classes'):
        told = told.get(key) if isinstance(told, Mapping) else None
    return tuple(map(str, told)) if isinstance(told, (list, tuple)) else ()


def require_own_weights(model: nn.Module, stored: Shapes, path: str) -> None:
    """Checks that a checkpoint has every parameter of a model.

    Args:
        model: As the runner built it.
        stored: What :func:`stored_shapes` returned.
        path: The file, for the message.

    Raises:
        CheckpointMismatch: If it has not, by name and shape.
    """
    model = bare_model(model)
    names = names_in_model(stored, model.state_dict())
    shapes = as_loaded({names[n]: shape for n, shape in stored.items()}, model)
    require_whole_model(model, shapes, path)
