"""Whether every part of a resumed checkpoint belongs to the training that resumes it.

mmengine pairs what it finds with what it built and passes over the rest: an empty list of schedules
starts the learning rate over without a word.
"""

from collections.abc import Mapping

from mmengine.hooks import EMAHook, Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from attnpool_backbones.checkpoints.matching import names_in_model, shapes_of
from attnpool_backbones.checkpoints.message_texts import list_names, shape_text
from attnpool_backbones.engine.resumed_optimizers import check_gradients, check_optimizers
from attnpool_backbones.engine.resumed_parts import WrongPart, kind_of, require_training_parts
from attnpool_backbones.engine.resumed_schedules import check_schedules
from attnpool_backbones.engine.wrapped_models import bare_model
from attnpool_backbones.registry import HOOKS

__all__ = ['ResumeCheckHook']


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Compares every part of a checkpoint with the training that is to go on from it.

    Weights, buffers, optimizer groups and their rates, gradients, schedules, moving averages, loss
    scale, counters, seed and log; the message names the part and what it should be. Says nothing
    when a checkpoint is only loaded.
    """

    # before any hook that takes a part for granted
    priority = 'HIGHEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Checks a checkpoint before anything of it is used.

        Args:
            runner: About to resume.
            checkpoint: What was read.

        Raises:
            WrongPart: Naming what does not fit.
        """
        if not runner._resume:
            return
        try:
            require_training_parts(checkpoint)
            # a strategy shards and names the parts in its own way
            if isinstance(runner, Runner):
                self._check_counters(runner, checkpoint['meta'])
                self._check_weights(runner, checkpoint)
                self._check_average(runner, checkpoint)
                # before rates, which depend on them
                check_schedules(runner, checkpoint)
                is_scaled = (runner.auto_scale_lr or {}).get('enable', False)
                check_optimizers(runner.optim_wrapper, checkpoint['optimizer'], is_scaled)
                check_gradients(runner.optim_wrapper, checkpoint)
        except WrongPart as error:
            raise WrongPart(
                f'cannot resume from {runner._load_from}: {error}. Weights alone are taken with '
                '--cfg-options load_from=FILE, as the start of a new training'
            ) from None

    @staticmethod
    def _check_counters(runner: Runner, meta: Mapping) -> None:
        loop = runner.train_loop
        ends = {'iter': loop.max_iters}
        if not isinstance(loop, IterBasedTrainLoop):
            ends = {'epoch': loop.max_epochs}  # a resumed run may have another batch size
        for name, most in ends.items():
            if meta[name] > most:
                raise WrongPart(f'its meta.{name} is {meta[name]}, beyond the end at {most}')

    @staticmethod
    def _check_weights(runner: Runner, checkpoint: Mapping) -> None:
        model = bare_model(runner.model)
        here = shapes_of(model.state_dict())
        stored = shapes_of(checkpoint['state_dict'])
        # LoadGuardHook gives the weights the model's names
        names = names_in_model(stored, model.state_dict())
        there = {names[name]: shape for name, shape in stored.items()}
        parts = {
            'lacks': [name for name in here if name not in there],
            'has besides': [name for name in there if name not in here],
            'has in other shapes': [
                f'{name} ({shape_text(there[name])}, here {shape_text(here[name])})'
                for name in here
                if name in there and there[name] != here[name]
            ],
        }
        wrong = [f'{what} {list_names(names)}' for what, names in parts.items() if names]
        if wrong:
            raise WrongPart(
                f'its state_dict is not that of this {type(model).__name__}: it '
                f'{"; it ".join(wrong)}'
            )

    @staticmethod
    def _check_average(runner: Runner, checkpoint: Mapping) -> None:
        average = checkpoint.get('ema_state_dict')
        hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        if average is None and hooks:
            raise WrongPart('it has no ema_state_dict, but the config has an EMAHook')
        if average is not None and not hooks:
            raise WrongPart(
                'its state_dict is a moving average, with the weights in ema_state_dict, but the '
                'config has no EMAHook'
            )
        for hook in hooks:
            if not isinstance(average, Mapping):
                raise WrongPart(f'its ema_state_dict is {kind_of(average)}, not a dict')
            lacking = [
                name
                for name, value in hook.ema_model.state_dict().items()
                if getattr(average.get(name), 'shape', None) != value.shape
            ]
            if lacking:
                raise WrongPart(f'its ema_state_dict does not have {list_names(lacking)}')
