"""Durations as people write them."""

import re

from attnpool_backbones.command_line import shortened

__all__ = ['duration_words', 'seconds_of']

LONGEST = 365 * 86400
UNITS = {'': 1, 's': 1, 'm': 60, 'h': 3600, 'd': 86400}


def seconds_of(duration: str | float) -> float:
    """Returns the seconds of a duration.

    Args:
        duration: Seconds, or a text as ``'90s'``, ``'10m'``, ``'1.5h'``, ``'1d'``.

    Raises:
        ValueError: If it is none, not above zero, or longer than 365 days.
    """
    match = re.fullmatch(r'\s*(\d+(?:\.\d*)?|\.\d+)\s*([smhd]?)\s*', str(duration))
    seconds = float(match.group(1)) * UNITS[match.group(2)] if match else 0.0
    if not 0 < seconds <= LONGEST:
        raise ValueError(
            f'{shortened(duration)} is no duration; write seconds, minutes, hours or days as 90s, '
            '10m, 1.5h or 1d, up to 365d'
        )
    return seconds


def duration_words(seconds: float) -> str:
    """Words a time: ``'1 h 5 min'``."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 90 else f'{minutes // 60} h {minutes % 60} min'
