"""Reading ahead and writing behind, so that a model never waits for a disk; two models at once."""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

import torch
from torch import nn

from attnpool_backbones.machine import usable_cores

__all__ = ['Writer', 'choose_threads', 'read_ahead', 'takes_all_cores', 'with_shared_weights']

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
    return 0 if takes_all_cores(device) and not waits else THREADS


def takes_all_cores(device: str) -> bool:
    """Tells whether a model computes with every core that this process may use."""
    return device.startswith('cpu') and torch.get_num_threads() >= usable_cores()


def with_shared_weights(model: nn.Module, count: int) -> list[nn.Module]:
    """Returns a model and copies of it that have the same weights, for as many threads.

    What a module notes in itself while it computes is its copy's own then.

    Args:
        model: To copy.
        count: Of all.

    Raises:
        TypeError, RuntimeError: If something in the model cannot be copied, as a lock.
    """
    weights = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return [model, *(copy.deepcopy(model, dict(weights)) for _ in range(count - 1))]


def read_ahead(
    items: Iterable[T], prepare: Callable[[T], R], threads: int, ahead: int, computing: int = 1
) -> Iterator[R]:
    """Yields ``prepare(item)`` in order while threads work on the next ones.

    Args:
        items: May have no end; taken by a thread of their own, since the next frame of a video is
            decoded when it is taken.
        prepare: Called in threads; libraries that decode and resize let others run meanwhile.
        threads: How many; 0: everything in this one.
        ahead: Results that are kept ready.
        computing: Threads that torch computes with in each of them. Default: 1.
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

    with _helpers(threads, 'read', computing) as pool:
        feeder = Thread(target=_fed, args=(feed, offer), daemon=True)
        feeder.start()
        try:
            while (future := ready.get()) is not None:
                yield future.result()
        finally:
            stop.set()
            feeder.join()
            pool.shutdown(cancel_futures=True)
            _leave_threads()


def _helpers(threads: int, name: str, computing: int = 1) -> ThreadPoolExecutor:
    """Makes threads in which torch computes with few threads, by default one each.

    A tensor that is copied in a thread would bring OpenMP threads of its own, and more of them than
    cores make all of them sleep at every barrier: small models take twice as long then.
    """
    torch.get_num_threads()  # settles those of the caller before helpers change the default
    return ThreadPoolExecutor(
        threads, thread_name_prefix=name, initializer=torch.set_num_threads, initargs=(computing,)
    )


def _leave_threads() -> None:
    """Gives threads to come as many threads of torch as the caller has, not those of a helper."""
    torch.set_num_threads(torch.get_num_threads())


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

    At its end all calls are made, also after an error elsewhere; none after one that failed.

    Args:
        waiting: Calls that may wait; more make :meth:`submit` wait for the thread. 0: there is no
            thread, and :meth:`submit` calls at once.
    """

    def __init__(self, waiting: int = 8) -> None:
        self._pool = _helpers(1, 'write')
        self._waiting: deque[Future] = deque()
        self._limit = waiting
        self._has_failed = False

    def submit(self, function: Callable[..., Any], *args: Any) -> None:
        """Calls a function later; an error of an earlier call is raised here."""
        if not self._limit:
            function(*args)
            return
        while len(self._waiting) >= self._limit or (self._waiting and self._waiting[0].done()):
            self._finish_first()
        self._waiting.append(self._pool.submit(self._call, function, *args))

    def __enter__(self) -> 'Writer':
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        try:
            while self._waiting:
                self._finish_first()
        except Exception:
            if kind is None:  # the first error is the one to tell
                raise
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            _leave_threads()

    def _call(self, function: Callable[..., Any], *args: Any) -> None:
        # its thread would take the next call before the caller hears of an error
        if self._has_failed:
            return
        try:
            function(*args)
        except BaseException:
            self._has_failed = True
            raise

    def _finish_first(self) -> None:
        """Waits for a call, which stays the first after Ctrl-C or an error of its own."""
        self._waiting[0].result()
        self._waiting.popleft()
