"""Work that several processes share, and which ends when one of them is killed."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from attnpool_backbones.command_line import UserError
from attnpool_backbones.process_lifetime import end_with_parent

__all__ = ['in_processes']

Result = TypeVar('Result')


def in_processes(
    work: Callable[[int], Result],
    count: int,
    processes: int,
    chunk: int,
    begin: Callable[..., object] | None = None,
    inherited: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yields ``work(0)`` ... ``work(count - 1)`` in order, from forked processes.

    Ctrl-C is left to the caller's process; those that were begun end their chunks first.

    Args:
        work: Can be pickled, and so can what it returns.
        count: Of calls.
        processes: How many work.
        chunk: Calls that a process takes at once.
        begin: Called in each process before its work. Default: nothing is.
        inherited: Arguments of ``begin``, which need not be picklable.

    Raises:
        UserError: If a process ended before its work did.
    """
    # a multiprocessing.Pool waits for ever for the result of a process that was killed
    executor = ProcessPoolExecutor(
        processes,
        multiprocessing.get_context('fork'),
        initializer=_begin,
        initargs=(begin, inherited),
    )
    with executor:
        try:
            yield from executor.map(work, range(count), chunksize=chunk)
        except BrokenProcessPool as error:
            raise UserError(
                f'one of {processes} processes was killed, most likely since the machine ran out '
                'of memory; fewer processes need less'
            ) from error


def _begin(begin: Callable[..., object] | None, inherited: tuple[Any, ...]) -> None:
    # an interrupt while it waits for work would leave the queue locked for the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    if begin is not None:
        begin(*inherited)
