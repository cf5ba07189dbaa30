"""What the processes of a training agree on after an iteration: to stop, or to save."""

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

__all__ = ['Wishes', 'is_between_updates', 'wanted_signal']


class Wishes:
    """Makes all processes of a training stop and save at the same iteration.

    Args:
        runner: The starting training.
    """

    def __init__(self, runner: Runner) -> None:
        self.group = None
        if runner.world_size > 1 and torch.distributed.get_backend() != 'gloo':
            self.group = torch.distributed.new_group(backend='gloo')

    def agreed(self, runner: Runner, due: bool) -> tuple[int, bool]:
        """Returns the signal to stop by and whether it is time to save, the same for all ranks.

        Args:
            runner: The running training.
            due: Whether it is time in this process.
        """
        number = wanted_signal(runner)
        if runner.world_size == 1:
            return number, due
        wishes = torch.tensor([number, int(due)])
        torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX, group=self.group)
        return int(wishes[0]), bool(wishes[1])


def wanted_signal(runner: Runner) -> int:
    """Returns the signal that this process got, 0 if there was none."""
    signals = getattr(runner._train_loop, 'signals', None)
    return 0 if signals is None else signals.wanted


def is_between_updates(optim_wrapper: OptimWrapper | OptimWrapperDict) -> bool:
    """Tells whether no gradient is being accumulated."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return all(is_between_updates(wrapper) for _, wrapper in optim_wrapper.items())
    return optim_wrapper.should_update()
