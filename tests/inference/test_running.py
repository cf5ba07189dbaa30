import threading
import time

import cv2
import pytest

from attnpool_backbones.inference.predictor import Options
from attnpool_backbones.inference.running import predict_and_write
from attnpool_backbones.inference.sources import Source


class Predictor:
    """Answers with the number of an image, and notes OpenCV's threads."""

    device, has_copies = 'cpu', False

    def __init__(self):
        self.threads = []

    def run(self, source, options, speed):
        for number in source.frames:
            if number == 'stop':
                raise KeyboardInterrupt
            self.threads.append(cv2.getNumThreads())
            yield number, 100 + number


class Outputs:
    def __init__(self):
        self.written = []

    def write(self, image, prediction):
        if prediction == 103:
            raise OSError('the disk is full')
        self.written.append((image, prediction))


def run(count, options=Options(), **more):  # noqa: B008
    predictor, outputs, steps = Predictor(), Outputs(), []
    source = count if isinstance(count, Source) else Source(iter(range(count)), count)
    predict_and_write(predictor, source, options, outputs, progress=lambda: steps.append(1), **more)
    return predictor.threads, outputs.written, len(steps)


def test_everything_is_written_in_order_when_it_returns():
    before = cv2.getNumThreads()
    threads, written, steps = run(3)
    assert written == [(0, 100), (1, 101), (2, 102)] and steps == 3
    # readers and writers are threads already
    assert threads == [1] * 3 and cv2.getNumThreads() == before


@pytest.mark.parametrize('limit, count', [(1, 1), (3, 3), (9, 3), (None, 3)])
def test_limit(limit, count):
    assert len(run(3, limit=limit)[1]) == count


def test_without_threads_everything_is_done_in_turn(monkeypatch):
    threads = []
    monkeypatch.setattr(Outputs, 'write', lambda *args: threads.append(threading.get_ident()))
    run(2, Options(threads=0))
    assert threads == [threading.get_ident()] * 2
    run(2, Options(threads=1))
    assert threading.get_ident() not in threads[2:] and len(threads) == 4


def test_a_camera_is_stopped_and_its_frames_are_written():
    assert run(Source(iter([0, 1, 'stop']), None))[1] == [(0, 100), (1, 101)]
    with pytest.raises(KeyboardInterrupt):
        run(Source(iter([0, 1, 'stop']), 3))


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
def test_what_was_predicted_before_an_error_is_written(monkeypatch, error):
    predicted, write = threading.Event(), Outputs.write

    def write_late(*args):
        assert predicted.wait(9)
        write(*args)

    def fails(*args):
        yield from ((number, number) for number in range(4))
        threading.Timer(0.1, predicted.set).start()
        raise error

    monkeypatch.setattr(Outputs, 'write', write_late)
    monkeypatch.setattr(Predictor, 'run', fails)
    outputs = Outputs()
    with pytest.raises(error):
        predict_and_write(Predictor(), Source(iter(()), 9), Options(threads=1), outputs)
    assert outputs.written == [(number, number) for number in range(4)]


def test_nothing_is_written_after_an_error_of_writing(monkeypatch):
    tried = []

    def fail(outputs, image, prediction):
        tried.append(image)
        time.sleep(0.1)
        raise OSError('the disk is full')

    monkeypatch.setattr(Outputs, 'write', fail)
    with pytest.raises(OSError, match='disk is full'):
        run(3)
    assert len(tried) == 1


def test_errors_of_writing_end_it():
    before = cv2.getNumThreads()
    with pytest.raises(OSError, match='disk is full'):
        run(5)
    assert cv2.getNumThreads() == before
