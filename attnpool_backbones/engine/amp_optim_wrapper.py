"""Mixed precision on a CPU, which mmengine's ``AmpOptimWrapper`` refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.utils import apply_to
from torch import nn

from attnpool_backbones.registry import OPTIM_WRAPPERS

# mmcv's operators (RoIAlign, NMS) have no kernels for bfloat16, and autocast does not know them.
# Detection heads call them on what they are given and on what they return.
KEPT_IN_FLOAT32 = ('mmcv.ops.', '.dense_heads.', '.roi_heads.')


def in_float32(values: Any) -> Any:
    """Returns nested lists, tuples and dicts of tensors with bfloat16 turned into float32."""
    return apply_to(
        values,
        lambda value: getattr(value, 'dtype', None) == torch.bfloat16,
        lambda value: value.float(),
    )


def is_kept(module: nn.Module) -> bool:
    """Tells whether values enter and leave a module in float32."""
    return any(part in type(module).__module__ for part in KEPT_IN_FLOAT32)


def feed_float32(module: nn.Module, inputs: tuple) -> tuple:
    """Forward pre-hook of kept modules."""
    return in_float32(inputs)


def return_float32(module: nn.Module, inputs: tuple, outputs: Any) -> Any:
    """Forward hook of kept modules."""
    return in_float32(outputs)


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Runs the forward pass in bfloat16 on the CPU.

    bfloat16 has the exponents of float32, so the loss needs no scaling. Takes the arguments of
    :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Wraps the forward pass of one training step.

        Args:
            model: The model being trained.
        """
        kept = [module for module in model.modules() if is_kept(module)]
        # Hooks of all modules would have every layer called, see may_fuse; checkpointed blocks run
        # again without them.
        hooks = [module.register_forward_pre_hook(feed_float32) for module in kept]
        hooks += [module.register_forward_hook(return_float32) for module in kept]
        try:
            with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
                yield
        finally:
            for hook in hooks:
                hook.remove()
