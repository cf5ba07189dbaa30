"""Reading ahead and writing behind, so that a model never waits for a disk."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

import torch

__all__ = ['Writer', 'choose_threads', 'read_ahead']

T = TypeVar('T')
R = TypeVar('R')
THREADS = 2


def choose_threads(device: str, waits: bool) -> int:
    """Returns how many threads should read images ahead.

    None where a model on the CPU takes all cores: threads would hold up those that it computes
    with, which wait for each other at the end of every operation.

    Args:
        device: Of the model.
        waits: Whether the source gives images when it likes to, as a camera does.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    is_full = device.startswith('cpu') and torch.get_num_threads() >= (cores or 1)
    return 0 if is_full and not waits else THREADS


def read_ahead(
    items: Iterable[T], prepare: Callable[[T], R], threads: int, ahead: int
) -> Iterator[R]:
    """Yields ``prepare(item)`` in order while threads work on the next ones.

    Args:
        items: May have no end; taken by a thread of their own, since the next frame of a video is
            decoded when it is taken.
        prepare: Called in threads; libraries that decode and resize let others run meanwhile.
        threads: How many; 0: everything in this one.
        ahead: Results that are kept ready.
    """
    if threads == 0:
        yield from map(prepare, items)
        return
    ready: Queue[Future | None] = Queue(maxsize=max(ahead, 1))
    stop = Event()

    def offer(future: Future | None) -> None:
        while not stop.is_set():
            try:
                return ready.put(future, timeout=0.1)
            except Full:
                continue

    def feed() -> None:
        for item in items:
            offer(pool.submit(prepare, item))
            if stop.is_set():
                return

    with _helpers(threads, 'read') as pool:
        feeder = Thread(target=_fed, args=(feed, offer), daemon=True)
        feeder.start()
        try:
            while (future := ready.get()) is not None:
                yield future.result()
        finally:
            stop.set()
            feeder.join()


def _helpers(threads: int, name: str) -> ThreadPoolExecutor:
    """Makes threads in which torch computes with one thread each.

    A tensor that is copied in a thread would bring OpenMP threads of its own, and more of them than
    cores make all of them sleep at every barrier: small models take twice as long then.
    """
    return ThreadPoolExecutor(
        threads, thread_name_prefix=name, initializer=torch.set_num_threads, initargs=(1,)
    )


def _fed(feed: Callable[[], None], offer: Callable[[Future | None], None]) -> None:
    """Feeds to the end, and hands on what went wrong."""
    try:
        feed()
    except BaseException as error:  # raised where the results are taken
        failed: Future = Future()
        failed.set_exception(error)
        offer(failed)
    else:
        offer(None)


class Writer:
    """Calls functions in one thread, in order, and keeps few of them waiting.

    Args:
        waiting: Calls that may wait; more make :meth:`submit` wait for the thread. 0: there is no
            thread, and :meth:`submit` calls at once.
    """

    def __init__(self, waiting: int = 8) -> None:
        self._pool = _helpers(1, 'write')
        self._waiting: deque[Future] = deque()
        self._limit = waiting

    def submit(self, function: Callable[..., Any], *args: Any) -> None:
        """Calls a function later; an error of an earlier call is raised here."""
        if not self._limit:
            function(*args)
            return
        while len(self._waiting) >= self._limit or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(function, *args))

    def __enter__(self) -> 'Writer':
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        try:
            while self._waiting and kind is None:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=kind is not None)
