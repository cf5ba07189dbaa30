"""Whether the schedules of a checkpoint are those of the training that resumes it."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner

from attnpool_backbones.checkpoints.message_texts import list_names
from attnpool_backbones.checkpoints.plain_history import without_functions
from attnpool_backbones.command_line import shortened
from attnpool_backbones.engine.resumable_loop import BATCHES_DONE
from attnpool_backbones.engine.resumed_parts import WrongPart, kind_of, plain

__all__ = ['check_schedules']

PLAN = (
    'T_max', 'milestones', 'step_size', 'periods', 'total_steps', 'gamma', 'factor', 'start_factor',
    'end_factor', 'power', 'eta_min', 'eta_min_ratio', 'restart_weights', 'begin', 'end',
)  # fmt: skip
"""What schedules are built of; the rest of their states is how far they are."""

OTHER_ITERATIONS = (
    'An epoch has another number of iterations than in the checkpoint: {}, or with its batch size'
)


def check_schedules(runner: Runner, checkpoint: Mapping) -> None:
    """Compares the stored states of all schedules with what the runner built.

    Args:
        runner: About to resume.
        checkpoint: Of a training, :func:`require_training_parts`.

    Raises:
        WrongPart: If they differ.
    """
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
