"""The parts that a checkpoint of a training has, and the error that names a wrong one."""

from collections.abc import Mapping
from typing import Any

from mmengine.logging import HistoryBuffer
from torch import Tensor

from attnpool_backbones.checkpoints.message_texts import list_names
from attnpool_backbones.command_line import MAX_SEED, UserError, shortened

__all__ = ['WrongPart', 'kind_of', 'plain', 'require_training_parts']


class WrongPart(UserError):
    """A checkpoint is whole, but a part of it is not that of a training, or of this one."""


def require_training_parts(checkpoint: Any) -> None:
    """Checks that what a file holds has the parts of a training, and each the right form.

    Args:
        checkpoint: Content of the file.

    Raises:
        WrongPart: Naming the first that is missing or of another form.
    """
    if not isinstance(checkpoint, Mapping):
        raise WrongPart(f'it holds {kind_of(checkpoint)}, not a dict')
    for key in ('meta', 'state_dict', 'message_hub', 'optimizer'):
        if key not in checkpoint:
            weights = key != 'state_dict'
            raise WrongPart(f'it has no {key}{" (only weights?)" if weights else ""}')
        if not isinstance(checkpoint[key], Mapping):
            raise WrongPart(f'its {key} is {kind_of(checkpoint[key])}, not a dict')
    meta = checkpoint['meta']
    for name in ('epoch', 'iter'):
        if type(meta.get(name)) is not int or meta[name] < 0:
            raise WrongPart(
                f'its meta.{name} is {shortened(meta.get(name))}, not a number from 0 on'
            )
    seed = meta.get('seed')
    if seed is not None and (type(seed) is not int or not 0 <= seed <= MAX_SEED):
        raise WrongPart(f'its meta.seed is {shortened(seed)}, not in 0..{MAX_SEED}')
    weights = checkpoint['state_dict']
    others = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if not weights or others:
        raise WrongPart(f'its state_dict has {"no weights" if not others else list_names(others)}')
    hub = checkpoint['message_hub']
    for name in ('log_scalars', 'runtime_info', 'resumed_keys'):
        if not isinstance(hub.get(name), Mapping):
            raise WrongPart(f'its message_hub.{name} is {kind_of(hub.get(name))}, not a dict')
    others = [n for n, value in hub['log_scalars'].items() if not isinstance(value, HistoryBuffer)]
    if others:
        raise WrongPart(f'its message_hub.log_scalars has no histories of {list_names(others)}')
    states = checkpoint.get('param_schedulers')
    if states is not None and not isinstance(states, (list, tuple, Mapping)):
        raise WrongPart(f'its param_schedulers are {kind_of(states)}, not a list')


def plain(value: Any) -> Any:
    """Returns a value that can be compared, whatever a file holds; milestones are counted."""
    if isinstance(value, Mapping):
        once = all(type(count) is int and count == 1 for count in value.values())
        value = list(value) if once else list(value.items())
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value if isinstance(value, (int, float, str, type(None))) else kind_of(value)


def kind_of(value: Any) -> str:
    """Words what a value is."""
    return 'missing' if value is None else f'of type {type(value).__name__}'
