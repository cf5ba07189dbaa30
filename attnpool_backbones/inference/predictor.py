"""Runs a detector, a segmentor or a tagger on images."""

import difflib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from queue import SimpleQueue
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from attnpool_backbones.class_colours import distinct_colours
from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.limits import MAX_PIXELS
from attnpool_backbones.dense_models import ImageTagger
from attnpool_backbones.dense_models.image_tags import TAGS
from attnpool_backbones.inference.exported_model import ExportedModel
from attnpool_backbones.inference.overlap import (
    choose_threads,
    read_ahead,
    takes_all_cores,
    with_shared_weights,
)
from attnpool_backbones.inference.prediction import Detections, Segmentation, Tagged
from attnpool_backbones.inference.slicing import merge, slices
from attnpool_backbones.inference.sources import Frame, Source, open_source
from attnpool_backbones.inference.tags import tags_of

__all__ = ['NO_OBJECTS', 'Options', 'Predictor', 'Speed']

READY = 64
"""Slices of an image that are resized before the model asks for them: all may fill the memory."""
NO_OBJECTS = (
    '{} gives no objects, which predictions are made of; a MaskFormer or Mask2Former gives them '
    'with --cfg-options model.test_cfg.instance_on=True'
)
"""Of a detector that gives something else, as a panoptic map."""


@dataclass(frozen=True)
class Options:
    """How to predict.

    Args:
        score: Smallest score of an object.
        classes: Names of the classes that are wanted, None for all.
        batch: Images that the model sees at once; images of other sizes start another batch.
        threads: That read and resize images ahead, 0: everything is done in turn. None: as
            :func:`~attnpool_backbones.inference.overlap.choose_threads` says.
        side: Of overlapping slices that a large image is cut into, in pixels; None: not cut.
        overlap: Of neighbouring slices, as a share of the side.
        at_once: Batches that are predicted on at once, each with its share of the cores. None: two
            where the model takes all cores of the CPU and ``threads`` is None, else one.

    Raises:
        UserError: If a number cannot be meant, or ``classes`` is a text.
    """

    score: float = 0.3
    classes: Sequence[str] | None = None
    batch: int = 1
    threads: int | None = None
    side: int | None = None
    overlap: float = 0.2
    at_once: int | None = None

    def __post_init__(self) -> None:
        for name, least in dict(batch=1, threads=0, side=1).items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f'{name}={value}: it has to be a whole number from {least} on')
        if not 0 <= self.overlap < 1:
            raise UserError(f'overlap={self.overlap}: it has to be a share from 0 to below 1')
        if isinstance(self.classes, str):
            raise UserError(f'classes={self.classes!r}: it has to be a list of names')

    def planned(self, device: str, count: int | None, has_copies: bool) -> 'Options':
        """Returns the options with what is None chosen.

        Two batches at once with half of the cores each leave one with all behind: cores wait for
        each other at the end of every operation, and reading, drawing and writing are shared too.

        Args:
            device: Of the model.
            count: Of the images, None if they come one by one without an end that is known.
            has_copies: Whether the model can run in several threads, as copies of it.
        """
        threads, at_once = self.threads, self.at_once
        if at_once is None:
            spared = has_copies and threads is None and takes_all_cores(device)
            has_two = count is not None and count > self.batch and torch.get_num_threads() > 1
            at_once = 2 if spared and has_two else 1
        if threads is None:
            threads = choose_threads(device, waits=count is None)
        return replace(self, threads=threads, at_once=at_once)


@dataclass
class Speed:
    """What a run took.

    Args:
        images: That were predicted on.
        forward: Seconds in the model.
        unreadable: Names of images that could not be read or prepared, and of folders, and why.
    """

    images: int = 0
    forward: float = 0.0
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Sample:
    """An image, or a slice of one, ready for the model."""

    name: str
    image: np.ndarray | None
    inputs: deque[dict[str, Any]] = field(default_factory=deque)
    later: Iterator[dict[str, Any]] = iter(())
    fault: str = ''
    corners: list[tuple[int, int]] = field(default_factory=list)

    def taken(self) -> Iterator[dict[str, Any]]:
        """Yields what the model gets, which nothing here holds any more."""
        while self.inputs:
            yield self.inputs.popleft()
        yield from self.later


class Predictor:
    """A trained model, which several threads may use.

    Args:
        model: In eval mode, on its device, or an exported file in its place.
        pipeline: Makes an image ready: takes ``img`` H, W, 3, gives ``inputs`` and
            ``data_samples``.
        classes: Names, by label.
        palette: Red, green and blue of each class; None: distinct colours.
        is_detector: Whether it finds objects, else it labels pixels.
        device: Where it is.
        cfg: Its config. Default: none, as of an exported file.
    """

    def __init__(
        self,
        model: nn.Module,
        pipeline: Callable[[dict[str, Any]], dict[str, Any]],
        classes: Sequence[str],
        palette: Any,
        is_detector: bool,
        device: str,
        cfg: Config | None = None,
    ) -> None:
        self.model, self.pipeline, self.cfg = model, pipeline, cfg
        self.classes, self.is_detector, self.device = tuple(classes), is_detector, device
        if palette is None or len(palette) != len(self.classes):
            palette = distinct_colours(len(self.classes))
        self.palette = np.array(palette, np.uint8).reshape(-1, 3)
        self._turn = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != '_turn'}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _turn=Lock())

    def __call__(self, source: Any, **options: Any) -> Iterator[Detections | Segmentation | Tagged]:
        """Predicts on all images of a source.

        Args:
            source: As :func:`~attnpool_backbones.inference.sources.open_source` takes it.
            **options: Of :class:`Options`.

        Yields:
            A prediction for each image that can be read and prepared, in order.

        Raises:
            UserError: If the source or an option is wrong.
        """
        opened = open_source(source, max_pixels=(self.cfg or {}).get('max_pixels') or MAX_PIXELS)
        for _, prediction in self.run(opened, Options(**options)):
            yield prediction

    def run(
        self, source: Source, options: Options, speed: Speed | None = None
    ) -> Iterator[tuple[np.ndarray, Detections | Segmentation | Tagged]]:
        """Predicts on all images of a source; threads may read the next ones meanwhile.

        Args:
            source: Opened.
            options: How to predict.
            speed: Filled in-place.

        Yields:
            Image H, W, 3 in blue, green, red and its prediction.
        """
        wanted = self._wanted(options.classes)
        speed = Speed() if speed is None else speed

        def prepare(frame: Frame) -> _Sample:
            return self._prepare(frame, options)

        options = options.planned(self.device, source.count, self.has_copies)
        ahead = options.batch * options.at_once + options.threads + 1
        samples = read_ahead(source.frames, prepare, options.threads, ahead)
        batches = self._batches(samples, options.batch, speed)
        for found, seconds in self._predictions(batches, options, wanted):
            speed.forward += seconds
            speed.images += len(found)
            yield from found
        speed.unreadable += source.closed

    def _predictions(
        self, batches: Iterator[list[_Sample]], options: Options, wanted: frozenset[int] | None
    ) -> Iterator[tuple[list[tuple[np.ndarray, Detections | Segmentation | Tagged]], float]]:
        """Yields images and predictions of a batch, and the model's share of the time."""
        at_once, models = options.at_once, SimpleQueue()
        try:
            copies = with_shared_weights(self.model, at_once)
        except (TypeError, RuntimeError):  # a model of somebody's with a lock, or with a graph
            copies, at_once = [self.model], 1
        for model in copies:
            models.put(model)

        def predict(batch: list[_Sample]) -> tuple[list[tuple[np.ndarray, Any]], float]:
            inputs = chain.from_iterable(sample.taken() for sample in batch)
            # the slices of an image are batches of their own size
            step = options.batch if options.side is not None else len(batch)
            seconds = 0.0

            def outputs() -> Iterator[Any]:
                nonlocal seconds
                while chunk := list(islice(inputs, step)):
                    started = time.perf_counter()
                    # nothing else holds them, nor the outputs that become a part of them: the
                    # slices of a large image together may not fit the memory
                    chunk = self.forward(chunk, model)
                    seconds += time.perf_counter() - started
                    yield from chunk

            model, coming, found = models.get(), outputs(), []
            try:
                for sample in batch:
                    own = islice(coming, len(sample.corners))
                    found.append((sample.image, self._prediction(sample, own, options, wanted)))
            finally:
                models.put(model)
            return found, seconds / at_once

        computing = max(1, torch.get_num_threads() // at_once)
        yield from read_ahead(
            batches, predict, at_once if at_once > 1 else 0, at_once + 1, computing
        )

    def _batches(
        self, samples: Iterator[_Sample], size: int, speed: Speed
    ) -> Iterator[list[_Sample]]:
        """Groups images of one size, so that a prediction does not depend on its neighbours."""
        batch: list[_Sample] = []
        for sample in samples:
            if sample.image is None:
                speed.unreadable.append(f'{sample.name}: {sample.fault}')
                continue
            if batch and (len(batch) == size or batch[0].image.shape != sample.image.shape):
                yield batch
                batch = []
            batch.append(sample)
        if batch:
            yield batch

    def _prepare(self, frame: Frame, options: Options) -> _Sample:
        try:
            image = frame.read()
        except UserError as error:
            return _Sample(frame.name, None, fault=str(error))
        if image is None:
            return _Sample(frame.name, None, fault='no image')
        height, width = image.shape[:2]
        boxes = [(0, 0, width, height)]
        if options.side is not None:
            boxes = slices(height, width, options.side, options.overlap)
        try:
            made = (
                self.pipeline(dict(img=image[top:bottom, left:right], img_id=0))
                for left, top, right, bottom in boxes
            )
            # slices have one size: what can be done with one can be done with all
            inputs = deque(islice(made, READY))
        except cv2.error as error:  # of a side that becomes 0 pixels, for instance
            fault = f'{width}x{height} pixels cannot be prepared as the config says: {error.err}'
            return _Sample(frame.name, None, fault=fault)
        corners = [(left, top) for left, top, *_ in boxes]
        return _Sample(frame.name, image, inputs, made, corners=corners)

    @torch.inference_mode()
    def forward(self, inputs: list[dict[str, Any]], model: nn.Module | None = None) -> list[Any]:
        """Runs the model on images of one size that the pipeline made ready.

        Args:
            inputs: What the pipeline gave.
            model: A copy of it. Default: the model itself.
        """
        model = self.model if model is None else model
        # a model may note in itself what it computes, as one with an image-level head does: threads
        # of a server would get the tags of each other's images
        is_shared = model is self.model and not isinstance(model, ExportedModel)
        with self._turn if is_shared else nullcontext():
            outputs = list(model.test_step(pseudo_collate(inputs)))
        # an exported file has answered, and needs no torch that knows the device
        if self.device.startswith('cuda') and not isinstance(model, ExportedModel):
            torch.cuda.synchronize(self.device)
        return outputs

    def _prediction(
        self,
        sample: _Sample,
        outputs: Iterator[Any],
        options: Options,
        wanted: frozenset[int] | None,
    ) -> Detections | Segmentation | Tagged:
        height, width = sample.image.shape[:2]
        tags: list[Any] = []
        if self.has_tags:
            outputs = _noting_tags(outputs, tags)
        if self.is_tagger:
            deque(outputs, 0)
            prediction = None
        elif not self.is_detector:
            prediction = self._segmentation(sample, outputs, wanted)
        else:
            parts = [
                self._detections(output, sample.name, options.score, wanted) for output in outputs
            ]
            prediction = parts[0]
            if len(parts) > 1:
                prediction = merge(parts, sample.corners, sample.name, height, width)
        if not self.has_tags:
            return prediction
        hidden = self._hidden(wanted)
        found = tags_of(tags, sample.corners, height, width, hidden)
        if prediction is None:
            return Tagged(sample.name, height, width, self.classes, found)
        return replace(prediction, tags=found)

    def _detections(
        self, output: Any, name: str, score: float, wanted: frozenset[int] | None
    ) -> Detections:
        found = getattr(output, 'pred_instances', None)
        if found is None:
            raise UserError(NO_OBJECTS.format(type(self.model).__name__))
        keep = found.scores >= score
        if wanted is not None:
            keep &= torch.isin(
                found.labels, torch.tensor(sorted(wanted), device=found.labels.device)
            )
        found = found[keep]
        masks = found.masks if 'masks' in found else None
        if isinstance(masks, torch.Tensor):
            masks = masks.cpu().numpy()
        boxes = found.bboxes.float().cpu().numpy()
        if masks is not None and not boxes.any():  # those of mmdet's SOLO heads
            boxes = _boxes_of(masks)
        height, width = output.ori_shape
        order = np.argsort(-found.scores.cpu().numpy(), kind='stable')
        return Detections(
            name, height, width, self.classes, boxes,
            found.scores.float().cpu().numpy(), found.labels.cpu().numpy(), masks,
        ).select(order)  # fmt: skip

    def _segmentation(
        self, sample: _Sample, outputs: Iterator[Any], wanted: frozenset[int] | None
    ) -> Segmentation:
        height, width = sample.image.shape[:2]
        if len(sample.corners) == 1:
            (output,) = outputs
            label_map = output.pred_sem_seg.data[0].cpu().numpy()
        else:
            total, seen = None, torch.zeros(height, width)
            for output, (left, top) in zip(outputs, sample.corners, strict=True):
                part = output.seg_logits.data.float().cpu()
                if total is None:
                    total = torch.zeros(len(part), height, width)
                rows, columns = slice(top, top + part.shape[1]), slice(left, left + part.shape[2])
                total[:, rows, columns] += part
                seen[rows, columns] += 1
            mean = total.div_(seen)
            # of two classes that share one channel, they are probabilities already
            label_map = mean.argmax(0) if len(mean) > 1 else mean[0] > self._threshold
            label_map = label_map.numpy()
        smallest = np.min_scalar_type(len(self.classes) - 1)
        return Segmentation(
            sample.name, height, width, self.classes, self.palette, label_map.astype(smallest),
            self._hidden(wanted),
        )  # fmt: skip

    @property
    def _threshold(self) -> float:
        """Probability above which a pixel has label 1, where two classes share a channel."""
        if isinstance(self.model, ExportedModel):
            return self.model.facts.binary
        return self.model.decode_head.threshold

    @property
    def has_copies(self) -> bool:
        """Whether copies of the model can run in threads; exported files have their own threads."""
        return next(self.model.parameters(), None) is not None

    @property
    def has_tags(self) -> bool:
        """Whether the model has an image-level head."""
        return hasattr(self.model, 'image_head')

    @property
    def is_tagger(self) -> bool:
        """Whether the model tells which classes an image has, and nothing else."""
        return isinstance(self.model, ImageTagger)

    def _hidden(self, wanted: frozenset[int] | None) -> tuple[int, ...]:
        return () if wanted is None else tuple(sorted(set(range(len(self.classes))) - wanted))

    def _wanted(self, names: Sequence[str] | None) -> frozenset[int] | None:
        if names is None:
            return None
        for name in names:
            if name not in self.classes:
                close = difflib.get_close_matches(name, self.classes, n=1, cutoff=0.5)
                hint = f'did you mean {close[0]}? ' if close else ''
                raise UserError(
                    f'--classes: the model has no class {name!r}; {hint}It has '
                    f'{", ".join(self.classes)}'
                )
        return frozenset(self.classes.index(name) for name in names)


def _boxes_of(masks: np.ndarray) -> np.ndarray:
    """Returns N, 4 float32: left, top, right and bottom of masks N, H, W bool; 0 of empty ones."""
    places = [cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8)) for mask in masks]
    x, y, width, height = np.array(places, np.float32).reshape(-1, 4).T
    return np.stack([x, y, x + width, y + height], 1)


def _noting_tags(outputs: Iterable[Any], tags: list[Any]) -> Iterator[Any]:
    for output in outputs:
        tags.append(output.get(TAGS))
        yield output
