"""Processes that share the parts of a model run it equally often, whatever they have left out."""

import threading
from types import SimpleNamespace

import pytest

from attnpool_backbones.engine.in_step import InStep

# batches of each process; None: nothing is left of it
CASES = {
    'all whole': ([1, 2], [3, 4]),
    'one left out': ([1, None, 2], [3, 4, 5]),
    'the first ones left out': ([None, None, 2], [3, 4, 5]),
    'the same one left out by both': ([1, None], [3, None]),
    'nothing left to one': ([None, None], [3, 4]),
    'no batch for one': ([], [3, 4, 5]),
    'more for one, and some left out': ([1, None, 2, None], [None, 4]),
    'nothing at all': ([None], []),
}


class Meeting:
    """Agreement of threads in the place of processes."""

    def __init__(self, count: int) -> None:
        self.numbers: list[tuple[int, ...]] = [()] * count
        self.barrier = threading.Barrier(count, timeout=20)

    def of(self, rank: int) -> SimpleNamespace:
        def highest(*numbers: int) -> tuple[int, ...]:
            self.numbers[rank] = numbers
            self.barrier.wait()
            found = tuple(map(max, zip(*self.numbers, strict=True)))
            self.barrier.wait()
            return found

        return SimpleNamespace(highest=highest)


@pytest.mark.parametrize('name', CASES)
def test_equally_often(name: str) -> None:
    batches = CASES[name]
    meeting = Meeting(len(batches))
    gathering = threading.Barrier(len(batches), timeout=20)
    seen: list[list[int]] = [[] for _ in batches]
    spares = [0] * len(batches)

    def process(rank: int) -> None:
        def val_step(batch: str) -> None:
            assert batch == 'spare'
            gathering.wait()
            spares[rank] += 1

        model = SimpleNamespace(val_step=val_step)
        for batch in InStep(model, lambda: 'spare', meeting.of(rank)).whole(batches[rank]):
            gathering.wait()
            seen[rank].append(batch)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not gathering.broken and not meeting.barrier.broken
    assert seen == [[b for b in own if b is not None] for own in batches]
    runs = {len(own) + spare for own, spare in zip(seen, spares, strict=True)}
    assert len(runs) == 1
