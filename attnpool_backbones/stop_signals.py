"""Signals that ask a run to stop: a training at a moment from which it can go on exactly."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

__all__ = [
    'STOP_SIGNALS',
    'Interruption',
    'StopSignals',
    'Stopped',
    'exit_code_of',
    'heeded_signals',
    'signal_name',
]

STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ('SIGTERM', 'SIGUSR1', 'SIGHUP', 'SIGINT')
    if hasattr(signal, name)
)
"""What schedulers (Slurm, Kubernetes), closed terminals and Ctrl-C send."""

SAME = 1.0
"""Seconds in which further signals are the same wish: a terminal and a launcher both pass it on."""


def heeded_signals() -> list[int]:
    """Returns the stop signals that this process was not started to ignore.

    ``nohup`` ignores SIGHUP, and a script SIGINT for what it starts with ``&``.
    """
    return [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


class Stopped(SystemExit):
    """A run was stopped by a signal after what it had done was saved.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(exit_code_of(number))
        self.number = number


def exit_code_of(number: int) -> int:
    """Returns the exit code by which shells tell of a signal."""
    return 128 + number


def signal_name(number: int) -> str:
    """Returns for instance ``'SIGTERM'``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'


class StopSignals:
    """Notes the first signal that asks to stop, and ends the process at the second one.

    A context: outside of it the signals do what they did before. Signals that are ignored stay so.
    Only the main thread of a process can catch signals; elsewhere nothing is caught. Child
    processes that are forked, to load data or to score, end by SIGTERM, with which they are told
    to, and leave the others to their parent.

    Attributes:
        received: Number of the signal, 0 as long as there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._since = 0.0
        self._owner = os.getpid()
        self._parent = os.getppid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> 'StopSignals':
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._handle) for s in heeded_signals()}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def wanted(self) -> int:
        """The signal to stop by, 0 if there is none; a launcher that died counts as SIGTERM."""
        if not self.received and os.getppid() != self._parent and 'RANK' in os.environ:
            self.received = signal.SIGTERM
        return self.received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return
        now = time.monotonic()
        if not self.received:
            self.received, self._since = number, now
            self._say(
                f'{signal_name(number)}: the training stops after this iteration and saves its '
                'state; a second signal ends it at once'
            )
        elif now - self._since > SAME:
            self._say(f'ended at once by {signal_name(number)}, without saving')
            os._exit(exit_code_of(number))

    @staticmethod
    def _say(message: str) -> None:
        """Prints from a signal handler, where Python's own files may be in use."""
        if os.environ.get('RANK', '0') == '0':
            # a terminal that was closed, of which SIGHUP tells, takes no more
            with suppress(OSError):
                number = sys.__stderr__.fileno() if sys.__stderr__ else 2
                os.write(number, f'\n{message}\n'.encode())


class Interruption(StopSignals):
    """Makes every signal that asks to stop do what Ctrl-C does: raise KeyboardInterrupt.

    A context, which ends by :class:`Stopped` after a signal that is not Ctrl-C's. Further signals
    of the same second are the same wish.

    Attributes:
        finishing: Whether the first signal is only noted, since the end is near. Default: False.
    """

    def __init__(self) -> None:
        super().__init__()
        self.finishing = False

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        super().__exit__(kind, *rest)
        is_end = kind is None or issubclass(kind, KeyboardInterrupt)
        if is_end and self.received not in (0, signal.SIGINT):
            raise Stopped(self.received) from None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.received:
            self.received, self._since = number, now
            if number != signal.SIGINT:
                self._say(f'{signal_name(number)}: what was done so far is written')
            if self.finishing:
                return
        elif now - self._since <= SAME:
            return
        raise KeyboardInterrupt


# ------------------------------------------------------------------ forked children

_before_fork = threading.local()


def _hold() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(getattr(handler, '__self__', None), StopSignals):
        _before_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _release() -> None:
    mask = _before_fork.__dict__.pop('mask', None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _release_in_child() -> None:
    if 'mask' in _before_fork.__dict__:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release()


if hasattr(os, 'register_at_fork'):
    # Python forgets what a child was sent before it ran, and who sent it would wait for its end:
    # a pool of processes that is done
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_release_in_child)
