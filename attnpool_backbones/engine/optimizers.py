"""The optimizers of a training, which has one or several of them by name."""

from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch.nn import Parameter

__all__ = ['accumulative_counts', 'is_between_updates', 'parameters_of', 'wrappers_of']


def wrappers_of(optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, OptimWrapper]:
    """Returns the wrapper of every optimizer by its name; '' if there is but one."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return dict(optim_wrapper.items())
    return {'': optim_wrapper}


def parameters_of(optim_wrapper: OptimWrapper | OptimWrapperDict) -> list[Parameter]:
    """Returns what the optimizers train, group by group."""
    return [
        parameter
        for wrapper in wrappers_of(optim_wrapper).values()
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    ]


def accumulative_counts(optim_wrapper: OptimWrapper | OptimWrapperDict) -> list[int]:
    """Returns how many iterations an update has, for each optimizer."""
    return [wrapper._accumulative_counts for wrapper in wrappers_of(optim_wrapper).values()]


def is_between_updates(optim_wrapper: OptimWrapper | OptimWrapperDict) -> bool:
    """Tells whether no gradient is being accumulated."""
    return all(wrapper.should_update() for wrapper in wrappers_of(optim_wrapper).values())
