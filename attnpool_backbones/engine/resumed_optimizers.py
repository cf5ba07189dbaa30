"""Whether the optimizers of a checkpoint are those of the training that resumes it."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from attnpool_backbones.checkpoints.message_texts import list_names, shape_text
from attnpool_backbones.command_line import shortened
from attnpool_backbones.engine.optimizers import parameters_of, wrappers_of
from attnpool_backbones.engine.pending_gradients import COUNTS, GRADIENTS
from attnpool_backbones.engine.resumed_parts import WrongPart, kind_of, plain

__all__ = ['check_gradients', 'check_optimizers']

SETTINGS = (
    'lr', 'weight_decay', 'momentum', 'betas', 'eps', 'dampening', 'nesterov', 'amsgrad',
    'maximize', 'alpha', 'centered', 'rho', 'lr_decay', 'momentum_decay',
)  # fmt: skip
"""What optimizers are built of. Others choose how they compute, or are changed by them."""

ADDED = ('decoupled_weight_decay',)
"""Settings that later versions of torch have, and fill in where a state lacks them."""


def check_optimizers(wrapper: Any, state: Mapping, is_scaled: bool) -> None:
    """Compares the stored state of the optimizers with their groups.

    Args:
        wrapper: Of the runner.
        state: What a checkpoint has as ``optimizer``.
        is_scaled: Whether the learning rate depends on the batch size, which may change.

    Raises:
        WrongPart: If they differ.
    """
    wrappers = wrappers_of(wrapper)
    states = {'': state} if '' in wrappers else state
    if set(states) != set(wrappers):
        raise WrongPart(f'its optimizer has {list_names(states)}, not {list_names(wrappers)}')
    for name, inner in wrappers.items():
        part = f'optimizer.{name}' if name else 'optimizer'
        check_optimizer(inner, states[name], part, is_scaled)


def check_optimizer(wrapper: Any, state: Any, part: str, is_scaled: bool) -> None:
    """Compares the stored state of one optimizer with its groups."""
    groups = state.get('param_groups') if isinstance(state, Mapping) else None
    entries = state.get('state') if isinstance(state, Mapping) else None
    if not isinstance(groups, (list, tuple)) or not isinstance(entries, Mapping):
        raise WrongPart(f'its {part} has no state and param_groups')
    built = wrapper.optimizer.param_groups
    if len(groups) != len(built):
        raise WrongPart(f'its {part} has {len(groups)} groups of parameters, here are {len(built)}')
    for number, (group, own) in enumerate(zip(groups, built, strict=True)):
        place = f'{part}.param_groups[{number}]'
        if not isinstance(group, Mapping) or not isinstance(group.get('params'), (list, tuple)):
            raise WrongPart(f'its {place} has no params')
        if len(group['params']) != len(own['params']):
            raise WrongPart(
                f'its {place} has {len(group["params"])} parameters, here are {len(own["params"])}'
            )
        settings = [key for key in own if key in wrapper.optimizer.defaults and key not in ADDED]
        lacking = [key for key in settings if key not in group]
        if lacking:
            raise WrongPart(
                f'its {place} has no {list_names(lacking)}: it is of another optimizer than this '
                f'{type(wrapper.optimizer).__name__}'
            )
        if not is_rate(group.get('lr')):
            raise WrongPart(f'its {place}.lr is {shortened(group.get("lr"))}')
        for index, parameter in zip(group['params'], own['params'], strict=True):
            check_entry(entries.get(index, {}), parameter, f'{part}.state[{shortened(index)}]')
    check_settings(groups, built, part, is_scaled)
    if not entries and built and keeps_state(wrapper.optimizer):
        raise WrongPart(f'its {part}.state is empty')
    scaler = state.get('loss_scaler')
    if scaler:
        scale = scaler.get('scale') if isinstance(scaler, Mapping) else None
        if not is_rate(scale) or not scale:
            raise WrongPart(f'its {part}.loss_scaler has no scale above 0')
    elif hasattr(wrapper, 'loss_scaler'):
        print_log(
            'The checkpoint has no loss scale: mixed precision looks for one anew.', 'current'
        )


def is_rate(value: Any) -> bool:
    """Tells whether a value is a finite number from 0 on."""
    return isinstance(value, (int, float)) and math.isfinite(value) and value >= 0


def check_settings(
    groups: Sequence[Mapping], built: Sequence[Mapping], part: str, is_scaled: bool
) -> None:
    """Compares the settings of an optimizer with the config: torch keeps the stored ones."""
    for name in SETTINGS:
        for number, (group, own) in enumerate(zip(groups, built, strict=True)):
            # where a schedule started from
            key = f'initial_{name}' if f'initial_{name}' in own else name
            if key not in own:
                continue
            there, here = group.get(key), own[key]
            if key == 'betas' and 'initial_momentum' in own and isinstance(there, (list, tuple)):
                # the first one follows a schedule, too
                there, here = there[1:], here[1:]
            if is_same_setting(there, here):
                continue
            place = f'{part}.param_groups[{number}].{key}'
            fault = f'its {place} is {shortened(there)}, here {shortened(here)}'
            if name == 'lr' and is_scaled and is_rate(there):
                print_log(
                    f'Of the checkpoint, {fault}: the training goes on with the learning rates it '
                    'began with.',
                    logger='current',
                    level=logging.WARNING,
                )
                break
            raise WrongPart(
                f'{fault}: a training that has begun keeps the settings of its optimizer. Resume '
                'with the --lr, --auto-scale-lr and optim_wrapper of its start'
            )


def is_same_setting(there: Any, here: Any) -> bool:
    """Tells whether a stored setting of an optimizer is that of the config."""
    if is_rate(there) and is_rate(here):
        return math.isclose(there, here)
    return plain(there) == plain(here)


def check_entry(entry: Any, parameter: Tensor, place: str) -> None:
    """Compares what an optimizer keeps for a parameter with the parameter's shape."""
    if not isinstance(entry, Mapping):
        raise WrongPart(f'its {place} is {kind_of(entry)}, not a dict')
    for name, value in entry.items():
        if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
            raise WrongPart(
                f'its {place}.{name} has shape {shape_text(value.shape)}, its parameter '
                f'{shape_text(parameter.shape)}'
            )


def check_gradients(wrapper: Any, checkpoint: Mapping) -> None:
    """Compares the gradients of an update that was begun with the parameters."""
    gradients, counts = checkpoint.get(GRADIENTS), checkpoint.get(COUNTS)
    if gradients is None:
        return
    # files of before do not tell
    if counts is not None and not (
        isinstance(counts, list) and all(type(count) is int for count in counts)
    ):
        raise WrongPart(f'its {COUNTS} is {shortened(counts)}, not a list of numbers')
    parameters = parameters_of(wrapper)
    if not isinstance(gradients, (list, tuple)) or len(gradients) != len(parameters):
        count = len(gradients) if isinstance(gradients, Sequence) else kind_of(gradients)
        raise WrongPart(f'its {GRADIENTS} are {count}, but there are {len(parameters)} parameters')
    for number, (gradient, parameter) in enumerate(zip(gradients, parameters, strict=True)):
        if gradient is None:
            continue
        if not isinstance(gradient, Tensor) or gradient.dtype != parameter.dtype:
            raise WrongPart(f'its {GRADIENTS}[{number}] is no tensor of {parameter.dtype}')
        if gradient.shape != parameter.shape:
            raise WrongPart(
                f'its {GRADIENTS}[{number}] has shape {shape_text(gradient.shape)}, its parameter '
                f'{shape_text(parameter.shape)}'
            )


def keeps_state(optimizer: Any) -> bool:
    """Tells whether an optimizer remembers anything; SGD without momentum does not."""
    return bool(optimizer.defaults.get('momentum', True))
