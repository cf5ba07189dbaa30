"""Leaves out images, masks and annotations that cannot be used, up to a limit, and names them."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.bit_depth import IGNORED
from attnpool_backbones.datasets.ignored_labels import ignored_labels
from attnpool_backbones.engine.agreement import Agreement
from attnpool_backbones.engine.in_step import InStep, is_sharded
from attnpool_backbones.engine.stand_in import StandIn, layers
from attnpool_backbones.registry import HOOKS

__all__ = ['BadDataError', 'SkipBadDataHook', 'data_sets', 'loading_again']

SKIPPED = 'skipped'
"""Where a batch tells what was left out while it was made; of a sample, that it is none."""
MAX_TRIES = 100
"""How often in a row another image is taken in training."""


class BadDataError(UserError):
    """More images, masks or annotations cannot be used than the limit allows."""


@dataclass(frozen=True)
class BadSample:
    """An image that was left out: its file and why."""

    path: str
    reason: str


class SkippingPipeline(StandIn):
    """A pipeline that gives nothing for a sample that it fails at, and remembers which it was.

    It runs in the processes that load the data; :class:`SkippingCollate` takes what it remembers.

    Args:
        pipeline: The data set's own pipeline.
        classes: How many classes label maps have; None for no limit.
        test_mode: Whether a sample that is left out is not replaced: testing wants each once.
        max_bad: How many images may be left out.
        is_mixed: Whether a wrapper makes samples of this pipeline's, so that each has to be one.
        ignored: Labels of pixels that no loss, or no metric, counts. Default: 255.

    Raises:
        BadDataError: From its call, if no image can be used and a wrapper needs one.
    """

    stands_for = 'pipeline'

    def __init__(
        self,
        pipeline: Callable,
        classes: int | None,
        test_mode: bool,
        max_bad: int,
        is_mixed: bool = False,
        ignored: Collection[int] = (IGNORED,),
    ) -> None:
        self.pipeline = pipeline
        self.classes = classes
        self.test_mode = test_mode
        self.max_bad = max_bad
        self.is_mixed = is_mixed
        self.ignored = tuple(ignored)
        self.bad: list[BadSample] = []  # of the batch that is being made
        self.tried: list[str] = []  # images in a row that could not be used

    def __call__(self, results: dict) -> Any:
        path = str(results.get('img_path', 'an image'))
        try:
            sample = self.pipeline(results)
            fault = self._wrong_labels(sample)
        except MemoryError:
            raise
        except Exception as error:  # a pipeline is anybody's code
            sample, fault = None, self._words(results, error)
        if not fault:
            if sample is not None:
                self.tried = []
            return sample
        self.bad.append(BadSample(path, fault))
        self.tried.append(path)
        is_hopeless = self.test_mode or len(self.tried) >= MAX_TRIES
        if self.is_mixed:
            if is_hopeless:
                reasons = {sample.path: sample.reason for sample in self.bad}
                raise BadDataError(f'no image can be used:\n{listed(reasons)}')
        elif is_hopeless or len(set(self.tried)) > self.max_bad:
            self.tried = []
            return {SKIPPED: True}
        return None  # the data set takes another one

    @staticmethod
    def _words(results: dict, error: Exception) -> str:
        name = '' if isinstance(error, UserError) else f'{type(error).__name__}: '
        words = ' '.join(f'{name}{error}'.split())
        mask = results.get('seg_map_path')
        return f'{words} (mask {mask})' if mask and 'img' in results else words

    def _wrong_labels(self, sample: Any) -> str:
        """Tells whether a label map has labels of no class, which no loss can compute with."""
        if self.classes is None or not isinstance(sample, dict):
            return ''
        packed = sample.get('data_samples')
        if packed is None:  # a wrapper makes a sample of several; mmdet's maps have other labels
            labels = sample.get('gt_seg_map') if 'seg_fields' in sample else None
            path = sample.get('seg_map_path', '')
        else:
            labels = getattr(getattr(packed, 'gt_sem_seg', None), 'data', None)
            path = getattr(packed, 'seg_map_path', '')
        if not isinstance(labels, (np.ndarray, torch.Tensor)):
            return ''
        labels = torch.as_tensor(labels)
        wrong = labels >= self.classes
        for value in self.ignored:
            wrong &= labels != value
        if not wrong.any():
            return ''
        values = torch.unique(labels[wrong]).tolist()[:5]
        return (
            f'label map {path} has {values}, but there are {self.classes} classes, and '
            f'ignore_index is {" or ".join(map(str, self.ignored))}'
        )


class SkippingCollate:
    """Leaves samples out of a batch that are none, and collects what was skipped.

    It runs where the samples are made: what the wrappers of data sets do with samples does not
    matter to it.

    Args:
        collate: Makes a batch of samples.

    Attributes:
        pipelines: Those of the samples.
    """

    def __init__(self, collate: Callable) -> None:
        self.collate = collate
        self.pipelines: list[SkippingPipeline] = []

    def __call__(self, samples: Sequence[Any]) -> Any:
        whole = [sample for sample in samples if not is_left_out(sample)]
        batch = self.collate(whole) if whole else {}
        skipped: list[BadSample] = []
        for pipeline in self.pipelines:
            skipped += pipeline.bad
            pipeline.bad = []
        if skipped:
            batch[SKIPPED] = skipped
        return batch


class WholeBatches(StandIn):
    """The batches of a dataloader that have a sample.

    Args:
        loader: The dataloader.
        report: Is told what was left out.
        in_step: Keeps the processes together that have to be. Default: None, each has its own.

    Raises:
        BadDataError: After the last batch, if no sample was left, and no other process has any.
    """

    stands_for = 'loader'

    def __init__(
        self,
        loader: Any,
        report: Callable[[Sequence[BadSample]], None],
        in_step: InStep | None = None,
    ) -> None:
        self.loader = loader
        self.report = report
        self.in_step = in_step

    def __iter__(self) -> Iterator:
        if self.in_step is not None:
            return self.in_step.whole(self._reported())
        return (batch for batch in self._reported() if batch is not None)

    def _reported(self) -> Iterator:
        is_usable = False
        for batch in self.loader:
            if isinstance(batch, dict):
                self.report(batch.pop(SKIPPED, ()))
            is_empty = isinstance(batch, dict) and not batch
            is_usable = is_usable or not is_empty
            yield None if is_empty else batch
        # of several processes another one may have images
        if not is_usable and get_world_size() == 1:
            raise BadDataError('there is nothing to evaluate: no image can be used, as told above')

    def __len__(self) -> int:
        return len(self.loader)


def data_sets(dataset: Any) -> Iterator[BaseDataset]:
    """Yields the data sets inside of wrappers."""
    inner = wrapped_by(dataset)
    if not inner and isinstance(dataset, BaseDataset):
        yield dataset
    for each in inner:
        yield from data_sets(each)


def mixed_data_sets(dataset: Any) -> Iterator[BaseDataset]:
    """Yields the data sets of whose samples a wrapper makes others, as for Mosaic."""
    inner = wrapped_by(dataset)
    for each in inner:
        yield from data_sets(each) if hasattr(dataset, 'pipeline') else mixed_data_sets(each)


def wrapped_by(dataset: Any) -> list:
    """Returns what a wrapper of data sets is around; nothing if it is none."""
    wrapped = getattr(dataset, 'dataset', None)
    return [*getattr(dataset, 'datasets', ()), *([] if wrapped is None else [wrapped])]


def is_left_out(sample: Any) -> bool:
    """Tells whether a data set gave no sample."""
    return isinstance(sample, dict) and SKIPPED in sample


def listed(reasons: Mapping[str, str]) -> str:
    """Words what was left out, by image."""
    return '\n'.join(f'  {path}: {reason}' for path, reason in reasons.items())


def first_usable(loader: Any) -> Any:
    """Makes a batch of the first sample of a watched dataloader that is not left out.

    Raises:
        BadDataError: If there is none.
    """
    dataset = loader.dataset
    for index in range(len(dataset)):
        sample = dataset[index]
        if not is_left_out(sample):
            batch = loader.collate_fn([sample])
            batch.pop(SKIPPED, None)  # told by the process that evaluates the images
            return batch
    raise BadDataError('no image of the validation can be used')


def loading_again(loop: Any) -> None:
    """Starts the loading processes of mmengine's iteration loop anew, to see changed data sets.

    Args:
        loop: Of a training. Others start theirs when they run.
    """
    started = getattr(loop, 'dataloader_iterator', None)
    if started is not None and hasattr(started, '_dataloader'):
        loop.dataloader_iterator = type(started)(loop.dataloader)


@HOOKS.register_module()
class SkipBadDataHook(Hook):
    """Leaves out images, masks and annotations that cannot be used, names them, stops at a limit.

    In training another image takes the place of one that is left out, chosen as mmengine does, by
    the random numbers of the batch; so it does where several images make one, as in a Mosaic. In
    testing the image is not evaluated; COCO's metrics count its objects as missed.

    Args:
        max_bad: How many images may be left out in a run, by each process. With 0 the first one
            ends it.

    Raises:
        BadDataError: When there are more; the message names all of them.
    """

    # before whatever looks at a batch
    priority = 'HIGHEST'

    def __init__(self, max_bad: int = 10) -> None:
        if max_bad < 0:
            raise ValueError(f'max_bad={max_bad} has to be 0 or more')
        self.max_bad = max_bad
        self.bad: dict[str, str] = {}
        self.told = 0

    def before_train(self, runner: Runner) -> None:
        """Prepares the data sets, before their batches are loaded."""
        self._watch(runner, runner.train_loop.dataloader, 'train')
        loading_again(runner.train_loop)

    def before_loading(self, runner: Runner, number: int) -> None:
        """Prepares the data sets again, to which a hook may have given other pipelines."""
        self._watch(runner, runner.train_loop.dataloader, 'train')

    def before_val(self, runner: Runner) -> None:
        """Prepares the data sets of a validation."""
        self._watch_loop(runner, runner.val_loop, 'val')

    def before_test(self, runner: Runner) -> None:
        """Prepares the data sets of a test."""
        self._watch_loop(runner, runner.test_loop, 'test')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Takes note of what was left out, and takes the notes out of the batch."""
        if isinstance(data_batch, dict):
            self._report(runner, data_batch.pop(SKIPPED, ()))
            if not data_batch:
                raise BadDataError(f'no image can be used:\n{listed(self.bad)}')

    def after_val(self, runner: Runner) -> None:
        """Tells how many images were not evaluated."""
        self._tell_sum(runner)

    def after_test(self, runner: Runner) -> None:
        """Tells how many images were not evaluated."""
        self._tell_sum(runner)

    def after_train(self, runner: Runner) -> None:
        """Tells how many images were left out."""
        self._tell_sum(runner)

    def _watch_loop(self, runner: Runner, loop: Any, split: str) -> None:
        self._watch(runner, loop.dataloader, split)
        if any(isinstance(layer, WholeBatches) for layer in layers(loop.dataloader)):
            return
        in_step = None
        if is_sharded(runner.model):
            loader = loop.dataloader
            in_step = InStep(
                runner.model, lambda: first_usable(loader), Agreement(runner.world_size)
            )
        loop.dataloader = WholeBatches(
            loop.dataloader, lambda skipped: self._report(runner, skipped), in_step
        )

    def _watch(self, runner: Runner, loader: Any, split: str) -> None:
        ignored = ignored_labels(runner.cfg, split)
        mixed = set(map(id, mixed_data_sets(loader.dataset)))
        watched = list(data_sets(loader.dataset))
        for dataset in watched:
            if isinstance(dataset.pipeline, SkippingPipeline):
                continue
            classes = dataset.metainfo.get('classes')
            dataset.pipeline = SkippingPipeline(
                dataset.pipeline,
                len(classes) if isinstance(classes, (list, tuple)) else None,
                # by what is done, as data sets of segmentors do not say what they are for
                split != 'train' or dataset.test_mode,
                self.max_bad,
                is_mixed=id(dataset) in mixed,
                ignored=ignored,
            )
        while hasattr(loader, 'loader'):
            loader = loader.loader
        if not isinstance(loader.collate_fn, SkippingCollate):
            loader.collate_fn = SkippingCollate(loader.collate_fn)
        loader.collate_fn.pipelines = [dataset.pipeline for dataset in watched]

    def _report(self, runner: Runner, skipped: Sequence[BadSample]) -> None:
        for sample in skipped:
            if sample.path in self.bad:
                continue
            self.bad[sample.path] = sample.reason
            if len(self.bad) <= self.max_bad:
                runner.logger.warning(
                    f'left out, {len(self.bad)} of at most {self.max_bad}: {sample.path}: '
                    f'{sample.reason}'
                )
        if len(self.bad) > self.max_bad:
            raise BadDataError(
                f'{len(self.bad)} images cannot be used, and at most {self.max_bad} may be left '
                f'out (--max-bad):\n{listed(self.bad)}\n'
                'attnpool verify CONFIG finds all of them'
            )

    def _tell_sum(self, runner: Runner) -> None:
        if len(self.bad) > self.told:
            self.told = len(self.bad)
            runner.logger.warning(
                f'{len(self.bad)} images could not be used and were left out, named above'
            )
