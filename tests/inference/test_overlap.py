import threading
import time

import pytest
import torch

from attnpool_backbones.inference import overlap
from attnpool_backbones.inference.overlap import Writer, read_ahead, with_shared_weights
from attnpool_backbones.inference.predictor import Options


@pytest.mark.parametrize('threads', [0, 1, 3])
def test_results_come_in_order(threads):
    def prepare(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    assert list(read_ahead(range(20), prepare, threads, 4)) == [n * n for n in range(20)]


def test_only_so_many_are_read_ahead():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    before = threading.active_count()
    results = read_ahead(items(), lambda n: n, 2, 3)
    assert next(results) == 0
    time.sleep(0.2)
    assert len(taken) < 12
    results.close()
    assert threading.active_count() == before


@pytest.mark.parametrize('threads', [0, 2])
def test_errors_of_reading_are_raised_where_results_are_taken(threads):
    def prepare(number: int) -> int:
        if number == 3:
            raise ValueError('three')
        return number

    results = read_ahead(range(9), prepare, threads, 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match='three'):
        list(results)


def test_errors_of_the_source_are_raised():
    def items():
        yield 1
        raise OSError('unplugged')

    with pytest.raises(OSError, match='unplugged'):
        list(read_ahead(items(), lambda n: n, 2, 2))


def test_writer_calls_in_order_and_raises_errors():
    done = []
    with Writer(waiting=2) as writer:
        for number in range(10):
            writer.submit(done.append, number)
    assert done == list(range(10))

    def fail() -> None:
        raise OSError('disk is full')

    with pytest.raises(OSError, match='disk is full'), Writer() as writer:
        writer.submit(fail)


def test_helpers_compute_with_one_thread_and_leave_others_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(read_ahead(range(2), lambda n: torch.get_num_threads(), 2, 3, 2)) == [2] * 2
        seen = list(read_ahead(range(4), lambda n: torch.get_num_threads(), 2, 3))
        with Writer() as writer:
            writer.submit(lambda: seen.append(torch.get_num_threads()))
        assert seen == [1] * 5
        assert torch.get_num_threads() == 2
        # nor do threads that somebody starts later get those of a helper
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert seen[5:] == [2]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    'device, computing, waits, expected',
    [
        ('cpu', 4, False, 0),
        ('cpu', 9, False, 0),
        # a core is free, images come when they like to, or another device computes
        ('cpu', 3, False, 2),
        ('cpu', 4, True, 2),
        ('cuda:0', 4, False, 2),
    ],
)
def test_threads_where_a_core_is_free(monkeypatch, device, computing, waits, expected):
    monkeypatch.setattr(overlap, 'usable_cores', lambda: 4)
    monkeypatch.setattr(overlap.torch, 'get_num_threads', lambda: computing)
    assert overlap.choose_threads(device, waits) == expected


@pytest.mark.parametrize(
    'given, device, count, has_copies, expected',
    [
        ({}, 'cpu', 9, True, (0, 2)),
        # nothing to share, a core is asked for reading, or no copy can be made
        ({}, 'cpu', 1, True, (0, 1)),
        (dict(batch=9), 'cpu', 9, True, (0, 1)),
        ({}, 'cpu', None, True, (2, 1)),
        (dict(threads=0), 'cpu', 9, True, (0, 1)),
        (dict(threads=3), 'cpu', 9, True, (3, 1)),
        ({}, 'cpu', 9, False, (0, 1)),
        ({}, 'cuda', 9, True, (2, 1)),
        (dict(at_once=3), 'cuda', 9, True, (2, 3)),
    ],
)
def test_batches_at_once_where_the_model_takes_all_cores(
    monkeypatch, given, device, count, has_copies, expected
):
    monkeypatch.setattr(overlap, 'usable_cores', lambda: 4)
    monkeypatch.setattr(overlap.torch, 'get_num_threads', lambda: 4)
    options = Options(**given).planned(device, count, has_copies)
    assert (options.threads, options.at_once) == expected


def test_copies_share_weights_and_nothing_else():
    model = torch.nn.BatchNorm1d(3)
    model.noted = []
    one, other = with_shared_weights(model, 2)
    assert one is model and other is not model and other.noted is not model.noted
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert other.state_dict(keep_vars=True)[name] is tensor
    model.lock = threading.Lock()
    with pytest.raises(TypeError):
        with_shared_weights(model, 2)
