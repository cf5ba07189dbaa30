"""A run's log and schedules as plain data, which torch's own ``weights_only`` reads anywhere.

mmengine stores its ``HistoryBuffer`` objects, which torch refuses unless it is told about them.
Inferencers read the weights before a config could tell it. A schedule of one cycle stores one of
its methods.
"""

from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

__all__ = ['as_plain_data', 'restore_histories', 'without_functions']

_HISTORY, _LENGTH = 'values_and_counts', 'max_length'


def as_plain_data(value: Any) -> Any:
    """Returns what a message hub holds, as containers, numbers, texts and tensors.

    Args:
        value: The state dict of a ``MessageHub``, or a part of it. It stays as it is.
    """
    if isinstance(value, HistoryBuffer):
        both = np.stack([np.asarray(part, dtype=np.float64) for part in value.data])
        return {_HISTORY: torch.from_numpy(both), _LENGTH: value.max_length}
    if isinstance(value, dict):
        return type(value)((key, as_plain_data(part)) for key, part in value.items())
    if type(value) in (list, tuple):
        return type(value)(as_plain_data(part) for part in value)
    if isinstance(value, np.generic):
        return value.item()
    return value


def restore_histories(content: Any) -> None:
    """Puts mmengine's objects in place of plain data in the log of a checkpoint.

    Args:
        content: The checkpoint, changed in-place; entries of other kinds stay as they are.
    """
    hub = content.get('message_hub') if isinstance(content, dict) else None
    scalars = hub.get('log_scalars') if isinstance(hub, dict) else None
    if isinstance(scalars, dict):
        for name, value in scalars.items():
            scalars[name] = _history(value)


def without_functions(schedules: Any) -> Any:
    """Returns the states of schedules without functions, which they choose by their config.

    Args:
        schedules: What a checkpoint has as ``param_schedulers``. It stays as it is.
    """
    if isinstance(schedules, dict):  # of several optimizers
        return {name: _plain_states(states) for name, states in schedules.items()}
    return _plain_states(schedules)


def _plain_states(states: Any) -> Any:
    if not isinstance(states, list):
        return states
    return [
        {k: v for k, v in state.items() if k != 'anneal_func' and not callable(v)}
        if isinstance(state, dict)
        else state
        for state in states
    ]


def _history(value: Any) -> Any:
    if not isinstance(value, dict) or value.keys() != {_HISTORY, _LENGTH}:
        return value
    both = value[_HISTORY]
    if not isinstance(both, Tensor) or both.dim() != 2 or len(both) != 2:
        return value
    if both.dtype != torch.float64 or type(value[_LENGTH]) is not int:
        return value
    buffer = HistoryBuffer(max_length=value[_LENGTH])
    if not both.is_meta:  # else only shapes of weights are wanted
        buffer._log_history, counts = both.numpy()
        buffer._count_history = counts.astype(np.int64)
    return buffer
