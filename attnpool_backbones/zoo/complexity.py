"""Parameters and multiply-accumulates of a model."""

from collections.abc import Callable

import torch
from torch import nn
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


def count_parameters(model: nn.Module) -> int:
    """Returns the number of values in all parameters, frozen ones too."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(forward: Callable[[], object]) -> int:
    """Returns the multiply-accumulates of convolutions and matrix products in ``forward()``.

    Norms, activations, pooling and RoIAlign count nothing. On the meta device nothing is computed.
    """
    # The counter cannot follow views of parameters that are made without gradients.
    counter = FlopCounterMode(display=False, custom_mapping=_MORE_FORMULAS)
    with torch.enable_grad(), counter:
        forward()
    return counter.get_total_flops() // 2
