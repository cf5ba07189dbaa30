"""Seconds of what is compared, taken in turns: a slower moment of the machine meets all of it."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

__all__ = ['median_seconds', 'seconds_in_turns']


def seconds_in_turns(
    steps: Sequence[Callable[[], float]], rounds: int, warm_up: int = 1
) -> list[list[float]]:
    """Runs steps in turns, every other round in reverse order.

    Args:
        steps: Each tells its seconds.
        rounds: That count.
        warm_up: Rounds before these. Default: 1.

    Returns:
        The seconds of each step, a number a round.
    """
    times: list[list[float]] = [[] for _ in steps]
    for index in range(warm_up + rounds):
        order = range(len(steps))
        for i in order if index % 2 else reversed(order):
            seconds = steps[i]()
            if index >= warm_up:
                times[i].append(seconds)
    return times


def median_seconds(
    calls: Sequence[Callable[[], object]], rounds: int = 5, warm_up: int = 1
) -> list[float]:
    """Returns the median seconds of each call, taken as by :func:`seconds_in_turns`.

    Args:
        calls: What is timed as a whole.
        rounds: That count, at least 1. Default: 5.
        warm_up: Rounds before these. Default: 1.
    """
    steps = [partial(_seconds, call) for call in calls]
    return [statistics.median(own) for own in seconds_in_turns(steps, rounds, warm_up)]


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
