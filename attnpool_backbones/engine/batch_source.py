"""The batches of a dataloader, from any of them on, also when a process that loads them is killed.

A run that goes on in the middle of an epoch and one whose loading process died need the same: the
batches from number n on, exactly as they would have come. Which samples they hold is known from the
sampler, and what is random in them from their number (:class:`RandomStateHook`).
"""

import copy
import itertools
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from mmengine.logging import print_log
from torch.utils.data import DataLoader

from attnpool_backbones.command_line import UserError
from attnpool_backbones.engine.stand_in import StandIn

__all__ = ['BatchSource', 'LoadingError', 'with_replacements']

MAX_REPLACEMENTS = 3
"""How often in a row the loading processes are replaced without a batch from them."""


FETCH_ERRORS = (EOFError, ConnectionError, FileNotFoundError)
"""What fetching from a process that has just died may raise before its end is known."""


class LoadingError(UserError):
    """The processes that load the batches are killed again and again."""


class LostWorker(Exception):
    """A process that loads batches ended before its work was done."""


class SkippingBatchSampler(StandIn):
    """Gives the batches of another batch sampler without the first ones.

    Args:
        batch_sampler: The other one. Never iterated itself, so that it stays as it was built.
        fresh: Returns one that begins anew. Default: a copy.
        dataset: What its samplers index; not copied.

    Attributes:
        skip: How many batches the next pass leaves out.
    """

    stands_for = 'batch_sampler'

    def __init__(
        self, batch_sampler: Any, dataset: Any, fresh: Callable[[], Iterable] | None = None
    ) -> None:
        self.batch_sampler = batch_sampler
        self.fresh = fresh or (lambda: copy.deepcopy(batch_sampler, {id(dataset): dataset}))
        self.skip = 0

    def __iter__(self) -> Iterator:
        return itertools.islice(iter(self.fresh()), self.skip, None)

    def __len__(self) -> int:
        return len(self.batch_sampler)


class BatchSource(StandIn):
    """Iterates over a dataloader from a given batch on, and replaces killed loading processes.

    Stands in for the dataloader, whose attributes it has; iterated by itself it begins at the first
    batch.

    Args:
        loader: Makes batches of more than one sample, in the order of a sampler.
        before_loading: Called whenever loading starts, with the number of the first batch in the
            whole run.
        fresh: Returns the loader's batch sampler as it was at the beginning. Default: a copy.

    Raises:
        ValueError: If the loader has no batch sampler.
    """

    stands_for = 'loader'

    def __init__(
        self,
        loader: DataLoader,
        before_loading: Callable[[int], None],
        fresh: Callable[[], Iterable] | None = None,
    ) -> None:
        if loader.batch_sampler is None:
            raise ValueError('a resumable training needs a dataloader with batches; set batch_size')
        self.loader = loader
        self.before_loading = before_loading
        self.sampler = SkippingBatchSampler(loader.batch_sampler, loader.dataset, fresh)
        # DataLoader refuses to be given another batch sampler, because batch_size would no longer
        # tell the truth; here it does
        vars(loader)['batch_sampler'] = self.sampler
        self._iterator: Any = None
        self._previous: Any = None
        self._waiting = False
        self._worker_died = False

    def __call__(self, skip: int, number: int) -> Iterator:
        """Yields the batches of one pass.

        Args:
            skip: How many batches of the pass to leave out.
            number: Number of the first batch that is wanted, in the whole run.

        Raises:
            LoadingError: The processes were killed several times at the same batch.
        """
        failures = 0
        while True:
            try:
                self._start(skip, number)
                while True:
                    try:
                        batch = self._next()
                    except StopIteration:
                        return
                    skip, number, failures = skip + 1, number + 1, 0
                    yield batch
            except LostWorker as lost:
                failures += 1
                self._replace(lost, number, failures)
            finally:
                self._stop_watching()

    def __iter__(self) -> Iterator:
        return self(0, 0)

    def __len__(self) -> int:
        return len(self.loader)

    def _start(self, skip: int, number: int) -> None:
        self.sampler.skip = skip
        self._worker_died = False
        self.before_loading(number)
        self._iterator = iter(self.loader)
        self.sampler.skip = 0  # for whoever iterates over the dataloader itself
        self._watch()

    def _next(self) -> Any:
        self._waiting = True
        try:
            if self._worker_died:
                self._require_workers()
            return next(self._iterator)
        except (StopIteration, LostWorker):
            raise
        except Exception as error:
            # What a process has made is fetched from it: when it has died, this fails in many ways.
            # Errors of the data come from processes that live.
            if isinstance(error, FETCH_ERRORS):
                self._await_end_of_worker()
            self._require_workers()
            raise
        finally:
            self._waiting = False

    def _watch(self) -> None:
        """Notes when a loading process ends.

        torch raises an error wherever the program is at that moment, perhaps in the middle of an
        optimizer step.
        """
        on_main_thread = threading.current_thread() is threading.main_thread()
        if self.loader.num_workers and hasattr(signal, 'SIGCHLD') and on_main_thread:
            self._previous = signal.signal(signal.SIGCHLD, self._on_child)

    def _stop_watching(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGCHLD, self._previous)
            self._previous = None

    def _on_child(self, signum: int, frame: FrameType | None) -> None:
        self._worker_died = True
        if self._waiting:
            self._require_workers()

    def _await_end_of_worker(self) -> None:
        """Gives the system time to tell that a process has ended which no longer answers."""
        deadline = time.monotonic() + 1.0
        while not self._dead_workers() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _dead_workers(self) -> list:
        workers = getattr(self._iterator, '_workers', ())
        return [worker for worker in workers if worker.exitcode not in (None, 0)]

    def _require_workers(self) -> None:
        dead = self._dead_workers()
        if dead:
            ends = ', '.join(f'{worker.pid} (exit code {worker.exitcode})' for worker in dead)
            raise LostWorker(f'process {ends}')

    def _replace(self, lost: LostWorker, number: int, failures: int) -> None:
        if failures > MAX_REPLACEMENTS:
            raise LoadingError(
                f'the processes that load the data were killed {failures} times in a row before '
                f'the batch of iteration {number + 1} was made ({lost}). Usual cause: not enough '
                'memory; lower num_workers or batch_size of the dataloader'
            ) from lost
        print_log(
            f'A process that loads the data was killed: {lost}. It is replaced, and the batches '
            f'from iteration {number + 1} on are made again.',
            logger='current',
            level=logging.WARNING,
        )
        self.close()

    def close(self) -> None:
        """Ends the loading processes."""
        iterator, self._iterator = self._iterator, None
        if hasattr(iterator, '_shutdown_workers'):
            # not when the last reference goes: errors hold some, and torch would tell of processes
            # that died wherever the program is then
            iterator._shutdown_workers()
        if self.loader.persistent_workers:
            self.loader._iterator = None


def with_replacements(loader: Any) -> Any:
    """Returns a dataloader of a validation or a test whose killed processes are replaced.

    Args:
        loader: Any; what is no dataloader of batches is returned as it is.
    """
    if isinstance(loader, DataLoader) and loader.batch_sampler is not None:
        return BatchSource(loader, lambda number: None)
    return loader
