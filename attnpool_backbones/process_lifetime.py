"""Beginning and end of processes of this machine."""

import atexit
import ctypes
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

__all__ = ['end_now', 'end_with_parent', 'is_running', 'start_time']

PR_SET_PDEATHSIG = 1  # of Linux


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
    """Linux's table of a process after its name, which may have spaces."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return []


def end_with_parent() -> None:
    """Makes the system send SIGTERM to this process when the one that started it ends.

    Only Linux can; the resumable loops ask at every iteration besides.
    """
    parent = os.getppid()
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:  # it ended in between
        os.kill(os.getpid(), signal.SIGTERM)


def end_now(code: int) -> NoReturn:
    """Ends this process without taking Python and the libraries apart first.

    Threads of torch's process groups that still want Python at that moment end the process by an
    abort, after everything has been done. What was registered to be done at the end is done.

    Args:
        code: Exit code.
    """
    # waits for threads as Python does at its end: pools, which wait for work, are told first
    threading._shutdown()
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        try:
            file.flush()
        except (OSError, ValueError):
            pass  # a closed pipe
    os._exit(code)
