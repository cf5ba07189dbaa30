"""Choices between two ways to compute the same, by a measurement on this processor."""

import logging
import time
from collections.abc import Callable

import torch
from mmengine.logging import MMLogger, print_log
from mmengine.registry import DefaultScope
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

CLEAR_LEAD = 1.4
"""How much faster one way has to be to be taken for that. Equal ways lie far below, whatever the
noise, so all processes of a machine choose alike, and a resumed run goes on to the same bits."""


class Choice:
    """Whether the second of two ways is taken, by a measurement in the first call's process.

    Args:
        measure: Returns the lead of the second way, see :func:`lead`.
        tell: Returns the log's line of a decision and the lead.
        least: Lead from which the second way is taken: :data:`CLEAR_LEAD`, or its inverse where
            the second way is the better one of two equal ones.
    """

    def __init__(
        self,
        measure: Callable[[], float],
        tell: Callable[[bool, float], str],
        least: float = CLEAR_LEAD,
    ):
        self.measure = measure
        self.tell = tell
        self.least = least
        self.decision: bool | None = None
        """What is taken, or None where the next call measures."""

    def __call__(self) -> bool:
        if self.decision is None:
            if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
                return False  # Nothing real is computed now, so nothing can be measured.
            measured = self.measure()
            self.decision = measured >= self.least
            if _is_run_logged():
                print_log(self.tell(self.decision, measured), 'current', logging.INFO)
        return self.decision


def _is_run_logged() -> bool:
    """Tells whether a Runner is there, whose scope and log have one name."""
    scope = DefaultScope.get_current_instance()
    return scope is not None and MMLogger.check_instance_created(scope.instance_name)


@torch.no_grad()
def lead(first: Callable[[], object], second: Callable[[], object], rounds: int) -> float:
    """Returns the rate of the second over that of the first: 1: equal; 2: twice as fast.

    One thread computes, and the best of interleaved rounds counts, so other work on the machine
    does not decide.

    Args:
        first: One way to compute something.
        second: Another way.
        rounds: How often each is computed, after once for nothing.
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        # Without autocast, which would measure its casts or other ways.
        with torch.autocast('cpu', enabled=False):
            times = [[_seconds(compute) for compute in (first, second)] for _ in range(rounds + 1)]
    finally:
        torch.set_num_threads(threads)
    of_first, of_second = (min(column) for column in zip(*times[1:], strict=True))
    return of_first / of_second


def _seconds(compute: Callable[[], object]) -> float:
    begin = time.perf_counter()
    compute()
    return time.perf_counter() - begin
