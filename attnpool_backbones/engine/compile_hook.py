"""Compiles the backbone of a detector or segmentor."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from attnpool_backbones.command_line import UserError
from attnpool_backbones.registry import HOOKS

__all__ = ['CompileBackboneHook']


@HOOKS.register_module()
class CompileBackboneHook(Hook):
    """Runs the backbone through ``torch.compile``, in training and testing.

    Only the backbone, or those of a student and its teacher: heads choose proposals and boxes by
    their values, which breaks graphs. Weights keep their names. The first batches are slow, and so
    is the first one of another size; from the second size on code for all sizes is made.

    Args:
        **options: Of ``torch.compile``, e.g. ``mode='max-autotune'``.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def before_run(self, runner: Runner) -> None:
        """Marks every backbone for compilation at its first call.

        Args:
            runner: About to train, validate or test.

        Raises:
            UserError: The model has none.
        """
        found = False
        for name, module in runner.model.named_modules():
            *outer, last = name.split('.')
            if last == 'backbone' and 'backbone' not in outer:
                module.compile(**self.options)
                found = True
        if not found:
            raise UserError(f'--compile: {type(runner.model).__name__} has no backbone')
