"""Predictions on a source, written while the model goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import cv2

from attnpool_backbones.inference.overlap import Writer
from attnpool_backbones.inference.predictor import Options, Predictor, Speed
from attnpool_backbones.inference.sources import Source
from attnpool_backbones.inference.writing import Outputs

__all__ = ['predict_and_write']

WAITING = 8
"""Predictions that may wait to be drawn and written."""


def predict_and_write(
    predictor: Predictor,
    source: Source,
    options: Options,
    outputs: Outputs,
    speed: Speed | None = None,
    limit: int | None = None,
    progress: Callable[[], Any] = lambda: None,
) -> None:
    """Predicts on all images of a source; threads may read, draw and write beside the model.

    Args:
        predictor: The model.
        source: Opened; Ctrl-C ends one that has no end, and what was predicted is written.
        options: How to predict; without threads everything is done in turn.
        outputs: Gets the predictions; closed by the caller.
        speed: Filled in-place. Default: not wanted.
        limit: Images after which to stop. Default: None, at the end.
        progress: Called after each image. Default: nothing is.
    """
    counts = [count for count in (source.count, limit) if count is not None]
    count = None if source.count is None else min(counts)
    options = options.planned(predictor.device, count, predictor.has_copies)
    waiting = WAITING if options.threads or options.at_once > 1 else 0
    with _single_threaded_opencv(), Writer(waiting) as writer:
        predictions = islice(predictor.run(source, options, speed), limit)
        try:
            for image, prediction in predictions:
                writer.submit(outputs.write, image, prediction)
                progress()
        except KeyboardInterrupt:
            if source.count is not None:
                raise
            # how a camera is stopped


@contextmanager
def _single_threaded_opencv() -> Iterator[None]:
    """Keeps OpenCV's threads away from the cores: images are read and drawn by threads already."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
