"""Numbers about which all processes of a run agree, on the CPU and whatever the devices."""

from datetime import timedelta

import torch
from torch.distributed import ReduceOp

__all__ = ['Agreement']

LONGEST_WAIT = timedelta(days=30)
"""How long processes wait for each other, as where saving waits for space."""


class Agreement:
    """What one process wants becomes what all do; all have to ask, and in the same order.

    Args:
        processes: How many there are. With several, all of them make one at the same time.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._group = None
        if processes > 1 and torch.distributed.get_backend() != 'gloo':
            # one of them may wait for space; hanging is told by the main group
            self._group = torch.distributed.new_group(backend='gloo', timeout=LONGEST_WAIT)

    def highest(self, *numbers: int) -> tuple[int, ...]:
        """Returns the highest of each number that a process gave."""
        return self._reduced(numbers, ReduceOp.MAX)

    def lowest(self, *numbers: int) -> tuple[int, ...]:
        """Returns the lowest of each number that a process gave."""
        return self._reduced(numbers, ReduceOp.MIN)

    def _reduced(self, numbers: tuple[int, ...], operation: ReduceOp) -> tuple[int, ...]:
        if self.processes == 1:
            return numbers
        values = torch.tensor(numbers)
        torch.distributed.all_reduce(values, operation, group=self._group)
        return tuple(values.tolist())
