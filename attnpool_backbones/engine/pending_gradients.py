"""Gradients of an update that was begun: gradient accumulation goes over several iterations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from attnpool_backbones.engine.optimizers import accumulative_counts, parameters_of, wrappers_of

__all__ = [
    'COUNTS',
    'GRADIENTS',
    'PendingGradients',
    'add_pending_gradients',
    'put_back',
    'take_pending_gradients',
]

GRADIENTS = 'gradients'
"""Where a checkpoint holds them, in the order of the optimizer's parameters."""

COUNTS = 'accumulative_counts'
"""Where it tells how many iterations an update has, for each optimizer."""


@dataclass(frozen=True)
class PendingGradients:
    """What a checkpoint tells of an update that was begun.

    Attributes:
        gradients: Of every parameter; None for those that have none.
        scales: What each optimizer's are multiplied by, by its name; '' if there is but one.
        counts: Iterations of an update, for each optimizer; None if the file does not tell.
    """

    gradients: Sequence[Tensor | None]
    scales: Mapping[str, float]
    counts: list[int] | None


def add_pending_gradients(checkpoint: dict, optim_wrapper: OptimWrapper | OptimWrapperDict) -> None:
    """Puts the gradient of every parameter into a checkpoint, on the CPU.

    Args:
        checkpoint: With the state of the optimizers, which has the scale; changed in-place.
        optim_wrapper: Of the running training.
    """
    gradients = (parameter.grad for parameter in parameters_of(optim_wrapper))
    checkpoint[GRADIENTS] = [None if each is None else each.cpu() for each in gradients]
    checkpoint[COUNTS] = accumulative_counts(optim_wrapper)


def take_pending_gradients(checkpoint: dict) -> PendingGradients | None:
    """Takes the gradients out of a checkpoint; None if it has none.

    Args:
        checkpoint: Changed in-place.
    """
    counts, gradients = checkpoint.pop(COUNTS, None), checkpoint.pop(GRADIENTS, None)
    if gradients is None:
        return None
    state: Mapping[str, Any] = checkpoint['optimizer']
    states = {'': state} if 'param_groups' in state else state
    scales = {
        name: (each.get('loss_scaler') or {}).get('scale', 1.0) for name, each in states.items()
    }
    return PendingGradients(gradients, scales, counts)


def put_back(pending: PendingGradients, optim_wrapper: OptimWrapper | OptimWrapperDict) -> None:
    """Gives every parameter its gradient, multiplied as the optimizers have it now.

    Args:
        pending: Of :func:`take_pending_gradients`.
        optim_wrapper: With the same parameters in the same order, and its scale loaded.
    """
    gradients = iter(pending.gradients)
    for name, wrapper in wrappers_of(optim_wrapper).items():
        scaler = getattr(wrapper, 'loss_scaler', None)
        factor = (1.0 if scaler is None else scaler.get_scale()) / pending.scales[name]
        for parameter in parameters_of(wrapper):
            gradient = next(gradients)
            parameter.grad = None if gradient is None else gradient.to(parameter) * factor
