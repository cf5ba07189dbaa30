"""Every pipeline of a run begins with a look at what it will load, whoever's tool runs it."""

from collections.abc import Sequence
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.hooks import Hook
from mmengine.runner import Runner

from attnpool_backbones.datasets.limits import MAX_PIXELS, InputLimits
from attnpool_backbones.engine.bad_data_hook import data_sets, loading_again
from attnpool_backbones.registry import HOOKS

__all__ = ['InputLimitsHook']


@HOOKS.register_module()
class InputLimitsHook(Hook):
    """Puts :class:`~attnpool_backbones.datasets.InputLimits` before the pipelines of all data sets.

    Pipelines that begin with one stay as they are.

    Args:
        max_pixels: How many pixels an image, a label map or a mask may have. Default: the
            config's setting ``max_pixels``, or else 2**28.
    """

    # with those that watch the data sets, before any batch is loaded
    priority = 'HIGHEST'

    def __init__(self, max_pixels: int | None = None) -> None:
        self.max_pixels = max_pixels

    def before_train(self, runner: Runner) -> None:
        """Prepares the data sets, before their batches are loaded."""
        self._limit(runner, runner.train_loop)
        loading_again(runner.train_loop)

    def before_loading(self, runner: Runner, number: int) -> None:
        """Prepares the data sets again, to which a hook may have given other pipelines."""
        self._limit(runner, runner.train_loop)

    def before_val(self, runner: Runner) -> None:
        """Prepares the data sets of a validation."""
        self._limit(runner, runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        """Prepares the data sets of a test."""
        self._limit(runner, runner.test_loop)

    def _limit(self, runner: Runner, loop: Any) -> None:
        limit = self.max_pixels or runner.cfg.get('max_pixels') or MAX_PIXELS
        for dataset in data_sets(loop.dataloader.dataset):
            steps = getattr(dataset.pipeline, 'transforms', None)
            if steps and not isinstance(steps[0], InputLimits):
                steps.insert(0, InputLimits(limit, depth_of(steps)))


def depth_of(steps: Sequence[Any]) -> str:
    """Tells what a pipeline's loader does with images of more than 8 bits."""
    loader = next((step for step in steps if isinstance(step, LoadImageFromFile)), None)
    if loader is None or str(loader.color_type) == 'unchanged':
        return 'kept'
    return 'cut' if loader.imdecode_backend == 'pillow' else 'scaled'
