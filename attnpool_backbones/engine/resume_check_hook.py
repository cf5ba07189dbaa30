"""Whether every part of a resumed checkpoint belongs to the training that resumes it.

mmengine pairs what it finds with what it built and passes over the rest: an empty list of schedules
starts the learning rate over without a word.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor

from attnpool_backbones.checkpoints.matching import names_in_model, shapes_of
from attnpool_backbones.checkpoints.message_texts import list_names, shape_text
from attnpool_backbones.checkpoints.plain_history import without_functions
from attnpool_backbones.command_line import UserError, shortened
from attnpool_backbones.engine.pending_gradients import COUNTS, GRADIENTS, parameters_of
from attnpool_backbones.engine.resumable_loop import BATCHES_DONE
from attnpool_backbones.registry import HOOKS

__all__ = ['ResumeCheckHook', 'WrongPart', 'require_training_parts']

MAX_SEED = 2**32 - 1
PLAN = (
    'T_max', 'milestones', 'step_size', 'periods', 'total_steps', 'gamma', 'factor', 'start_factor',
    'end_factor', 'power', 'eta_min', 'eta_min_ratio', 'restart_weights', 'begin', 'end',
)  # fmt: skip
"""What schedules are built of; the rest of their states is how far they are."""

SETTINGS = (
    'lr', 'weight_decay', 'momentum', 'betas', 'eps', 'dampening', 'nesterov', 'amsgrad',
    'maximize', 'alpha', 'centered', 'rho', 'lr_decay', 'momentum_decay',
)  # fmt: skip
"""What optimizers are built of. Others choose how they compute, or are changed by them."""

OTHER_ITERATIONS = (
    'An epoch has another number of iterations than in the checkpoint: {}, or with its batch size'
)

ADDED = ('decoupled_weight_decay',)
"""Settings that later versions of torch have, and fill in where a state lacks them."""


class WrongPart(UserError):
    """A checkpoint is whole, but a part of it is not that of a training, or of this one."""


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Compares every part of a checkpoint with the training that is to go on from it.

    Weights, buffers, optimizer groups and their rates, gradients, schedules, moving averages, loss
    scale, counters, seed and log; the message names the part and what it should be. Says nothing
    when a checkpoint is only loaded.
    """

    # before any hook that takes a part for granted
    priority = 'HIGHEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Checks a checkpoint before anything of it is used.

        Args:
            runner: About to resume.
            checkpoint: What was read.

        Raises:
            WrongPart: Naming what does not fit.
        """
        if not runner._resume:
            return
        try:
            require_training_parts(checkpoint)
            # a strategy shards and names the parts in its own way
            if isinstance(runner, Runner):
                self._check_counters(runner, checkpoint['meta'])
                self._check_weights(runner, checkpoint)
                self._check_average(runner, checkpoint)
                # before rates, which depend on them
                self._check_schedules(runner, checkpoint)
                is_scaled = (runner.auto_scale_lr or {}).get('enable', False)
                check_optimizers(runner.optim_wrapper, checkpoint['optimizer'], is_scaled)
                check_gradients(runner.optim_wrapper, checkpoint)
        except WrongPart as error:
            raise WrongPart(
                f'cannot resume from {runner._load_from}: {error}. Weights alone are taken with '
                '--cfg-options load_from=FILE, as the start of a new training'
            ) from None

    @staticmethod
    def _check_counters(runner: Runner, meta: Mapping) -> None:
        loop = runner.train_loop
        ends = {'iter': loop.max_iters}
        if not isinstance(loop, IterBasedTrainLoop):
            ends = {'epoch': loop.max_epochs}  # a resumed run may have another batch size
        for name, most in ends.items():
            if meta[name] > most:
                raise WrongPart(f'its meta.{name} is {meta[name]}, beyond the end at {most}')

    @staticmethod
    def _check_weights(runner: Runner, checkpoint: Mapping) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        here = shapes_of(model.state_dict())
        stored = shapes_of(checkpoint['state_dict'])
        # LoadGuardHook gives the weights the model's names
        names = names_in_model(stored, model.state_dict())
        there = {names[name]: shape for name, shape in stored.items()}
        parts = {
            'lacks': [name for name in here if name not in there],
            'has besides': [name for name in there if name not in here],
            'has in other shapes': [
                f'{name} ({shape_text(there[name])}, here {shape_text(here[name])})'
                for name in here
                if name in there and there[name] != here[name]
            ],
        }
        wrong = [f'{what} {list_names(names)}' for what, names in parts.items() if names]
        if wrong:
            raise WrongPart(
                f'its state_dict is not that of this {type(model).__name__}: it '
                f'{"; it ".join(wrong)}'
            )

    @staticmethod
    def _check_average(runner: Runner, checkpoint: Mapping) -> None:
        average = checkpoint.get('ema_state_dict')
        hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        if average is None and hooks:
            raise WrongPart('it has no ema_state_dict, but the config has an EMAHook')
        if average is not None and not hooks:
            raise WrongPart(
                'its state_dict is a moving average, with the weights in ema_state_dict, but the '
                'config has no EMAHook'
            )
        for hook in hooks:
            if not isinstance(average, Mapping):
                raise WrongPart(f'its ema_state_dict is {kind_of(average)}, not a dict')
            lacking = [
                name
                for name, value in hook.ema_model.state_dict().items()
                if getattr(average.get(name), 'shape', None) != value.shape
            ]
            if lacking:
                raise WrongPart(f'its ema_state_dict does not have {list_names(lacking)}')

    @staticmethod
    def _check_schedules(runner: Runner, checkpoint: Mapping) -> None:
        built, stored = runner.param_schedulers, checkpoint.get('param_schedulers')
        if built is None:
            built = []
        pairs = {'': (built, stored)}
        if isinstance(built, Mapping):
            if not isinstance(stored, Mapping) or set(stored) != set(built):
                raise WrongPart(f'its param_schedulers are not those of {list_names(built)}')
            pairs = {f' of {name}': (built[name], stored[name]) for name in built}
        for of, (schedules, states) in pairs.items():
            if states is None and not schedules:
                continue
            if not isinstance(states, (list, tuple)) or len(states) != len(schedules):
                count = len(states) if isinstance(states, Sequence) else kind_of(states)
                raise WrongPart(
                    f'its param_schedulers{of} are {count}, but the config has {len(schedules)}'
                )
            for number, (schedule, state) in enumerate(zip(schedules, states, strict=True)):
                part = f'param_schedulers{of}[{number}]'
                check_schedule(schedule, state, part, checkpoint)
                try:
                    check_plan(schedule, state, part)
                except WrongPart as error:
                    if schedule.by_epoch or has_same_epochs(runner, checkpoint):
                        raise
                    print_log(OTHER_ITERATIONS.format(error), 'current', logging.WARNING)


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


def check_optimizers(wrapper: Any, state: Mapping, is_scaled: bool) -> None:
    """Compares the stored state of the optimizers with their groups.

    Args:
        wrapper: Of the runner.
        state: What a checkpoint has as ``optimizer``.
        is_scaled: Whether the learning rate depends on the batch size, which may change.

    Raises:
        WrongPart: If they differ.
    """
    if isinstance(wrapper, OptimWrapperDict):
        names = [name for name, _ in wrapper.items()]
        if set(state) != set(names):
            raise WrongPart(f'its optimizer has {list_names(state)}, not {list_names(names)}')
        for name, inner in wrapper.items():
            check_optimizer(inner, state[name], f'optimizer.{name}', is_scaled)
    else:
        check_optimizer(wrapper, state, 'optimizer', is_scaled)


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


def check_schedule(schedule: Any, state: Any, part: str, checkpoint: Mapping) -> None:
    """Compares the stored state of a schedule with the schedule and the counters."""
    if not isinstance(state, Mapping):
        raise WrongPart(f'its {part} is {kind_of(state)}, not a dict')
    own = without_functions([schedule.state_dict()])[0]
    lacking = [name for name in own if name not in state]
    if lacking:
        raise WrongPart(
            f'its {part} has no {list_names(lacking)}: it is of another schedule than this '
            f'{type(schedule).__name__}'
        )
    for name in ('last_step', '_global_step', 'begin', 'end'):
        value = state.get(name, 0)
        if type(value) is not int:
            raise WrongPart(f'its {part}.{name} is {shortened(value)}, not a whole number')
    if bool(state.get('by_epoch')) != schedule.by_epoch:
        raise WrongPart(f'its {part} counts {"epochs" if state.get("by_epoch") else "iterations"}')
    done = checkpoint['meta']['epoch' if schedule.by_epoch else 'iter']
    steps = state.get('_global_step')
    if steps is not None and not getattr(schedule, 'need_val_args', False) and steps != done:
        raise WrongPart(
            f'its {part} has made {steps} steps, but meta tells of {done} '
            f'{"epochs" if schedule.by_epoch else "iterations"}'
        )


def has_same_epochs(runner: Runner, checkpoint: Mapping) -> bool:
    """Tells whether iterations are counted as before; another batch size makes longer epochs."""
    loop = runner.train_loop
    if isinstance(loop, IterBasedTrainLoop):
        return True
    done = checkpoint['message_hub']['runtime_info'].get(BATCHES_DONE)
    return isinstance(done, (list, tuple)) and list(done[1:2]) == [len(loop.dataloader)]


def check_plan(schedule: Any, state: Mapping, part: str) -> None:
    """Compares where a stored schedule leads with the config: mmengine keeps the stored one."""
    built = schedule.state_dict()
    for name in filter(built.__contains__, PLAN):
        there, here = plain(state[name]), plain(built[name])
        if there != here:
            raise WrongPart(
                f'its {part}.{name} is {shortened(there)}, here {shortened(here)}: the schedule of '
                'a training that has begun stays as it is. Resume with the --epochs and '
                'param_scheduler of its start'
            )


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
