"""Limits of time that a slow, busy or suspended machine does not use up."""

import time
from collections.abc import Callable

STEP = 0.02  # seconds


def comes_true(is_so: Callable[[], object], seconds: float) -> bool:
    """Waits until something is so.

    The naps are counted, not the clock: what is suspended meanwhile, the test itself with it, is
    given the time that it missed.

    Args:
        is_so: Asked again and again.
        seconds: How long at least, before the answer is no.
    """
    for _ in range(round(seconds / STEP)):
        if is_so():
            return True
        time.sleep(STEP)
    return bool(is_so())
