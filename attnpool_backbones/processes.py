"""Questions about other processes of this machine."""

import os
from pathlib import Path

__all__ = ['is_running', 'start_time']


def is_running(pid: int) -> bool:
    """Tells whether a process of this machine is there, and not only its exit code."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return _fields(pid)[:1] != ['Z']


def start_time(pid: int) -> str:
    """Returns when a process started, in ticks since the machine did; '' if it is not known.

    Tells a process from a later one with the same number.
    """
    fields = _fields(pid)
    return fields[19] if len(fields) > 19 else ''


def _fields(pid: int) -> list[str]:
    """Linux's table of a process behind its name, which may have spaces."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return []
