"""Choices between two ways to compute the same, by a measurement on this processor."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.logging import MMLogger, print_log
from mmengine.registry import DefaultScope
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

CLEAR_LEAD = 1.4
"""How much faster one way has to be to be taken for that. Equal ways lie far below, whatever the
noise; where the lead is near to it, processes of a machine may choose differently."""

_choices: dict[str, 'Choice'] = {}


class Choice:
    """Whether the second of two ways is taken, by a measurement in the first call's process.

    Args:
        name: What is computed, in checkpoints.
        measure: Returns the lead of the second way, see :func:`lead`; 0 where there is no such way.
        tell: Returns the log's line of a decision and the lead.
        least: Lead from which the second way is taken: :data:`CLEAR_LEAD`, or its inverse where
            the second way is the better one of two equal ones.
    """

    def __init__(
        self,
        name: str,
        measure: Callable[[], float],
        tell: Callable[[bool, float], str],
        least: float = CLEAR_LEAD,
    ):
        self.measure = measure
        self.tell = tell
        self.least = least
        self.decision: bool | None = None
        """What is taken, or None where the next call measures."""
        _choices[name] = self

    def __call__(self) -> bool:
        if self.decision is None:
            if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
                return False  # Nothing real is computed now, so nothing can be measured.
            measured = self.measure()
            self.decision = measured >= self.least
            if _is_run_logged():
                print_log(self.tell(self.decision, measured), 'current', logging.INFO)
        return self.decision


def decisions() -> dict[str, bool]:
    """Returns what was decided so far, by what is computed."""
    return {name: c.decision for name, c in _choices.items() if c.decision is not None}


def decide_as(others: Mapping[str, Any]) -> None:
    """Decides as another process did, where this processor can.

    Args:
        others: Of :func:`decisions`; what is unknown, or no decision, is passed over.
    """
    for name, decision in others.items():
        choice = _choices.get(name)
        if choice is None or type(decision) is not bool or decision is choice.decision:
            continue
        choice.decision = decision and choice.measure() > 0


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
