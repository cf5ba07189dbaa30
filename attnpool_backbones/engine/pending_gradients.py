"""Gradients of an update that was begun: gradient accumulation goes over several iterations."""

from collections.abc import Sequence

from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor
from torch.nn import Parameter

__all__ = ['GRADIENTS', 'parameters_of', 'pending_gradients', 'put_back']

GRADIENTS = 'gradients'
"""Where a checkpoint holds them, in the order of the optimizer's parameters."""


def parameters_of(optim_wrapper: OptimWrapper | OptimWrapperDict) -> list[Parameter]:
    """Returns what the optimizers train, group by group."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return [each for _, wrapper in optim_wrapper.items() for each in parameters_of(wrapper)]
    groups = optim_wrapper.optimizer.param_groups
    return [parameter for group in groups for parameter in group['params']]


def pending_gradients(optim_wrapper: OptimWrapper | OptimWrapperDict) -> list[Tensor | None]:
    """Returns the gradient of every parameter, on the CPU; None for those that have none."""
    gradients = (parameter.grad for parameter in parameters_of(optim_wrapper))
    return [None if gradient is None else gradient.cpu() for gradient in gradients]


def put_back(
    gradients: Sequence[Tensor | None], optim_wrapper: OptimWrapper | OptimWrapperDict
) -> None:
    """Gives every parameter its gradient.

    Args:
        gradients: Of :func:`pending_gradients`.
        optim_wrapper: With the same parameters in the same order.
    """
    for parameter, gradient in zip(parameters_of(optim_wrapper), gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.to(parameter)
