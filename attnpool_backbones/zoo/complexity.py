"""Parameters and multiply-accumulates of a model."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _fused_attention_on_cpu(
    query: torch.Size,
    key: torch.Size,
    value: torch.Size,
    *args,
    out_shape: torch.Size | None = None,
    **kwargs,
) -> int:
    return sdpa_flop_count(query, key, value)


# torch counts the fused attention kernels of CUDA, but not that of the CPU.
_MORE_FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused_attention_on_cpu
}


class _WatchedModules:
    """In place of the counter's own list of running modules, which nobody reads here.

    That one cannot follow views of parameters that are made without gradients. Like it, this one
    watches all modules, so that operators compute what articles count: their formulas.
    """

    parents = frozenset({'Global'})

    def __enter__(self) -> None:
        self._hook = register_module_forward_hook(lambda *_: None)

    def __exit__(self, *error: object) -> None:
        self._hook.remove()


def count_parameters(model: nn.Module) -> int:
    """Returns the number of values in all parameters, frozen ones too."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(forward: Callable[[], object]) -> int:
    """Returns the multiply-accumulates of convolutions and matrix products in ``forward()``.

    Norms, activations, pooling and RoIAlign count nothing. On the meta device nothing is computed.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_MORE_FORMULAS)
    counter.mod_tracker = _WatchedModules()
    with counter:
        forward()
    return counter.get_total_flops() // 2
