"""Parameters and multiply-accumulates of a model."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Returns the number of values in all parameters, frozen ones too."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(forward: Callable[[], object]) -> int:
    """Returns the multiply-accumulates of convolutions and matrix products in ``forward()``.

    Norms, activations, pooling and RoIAlign count nothing. On the meta device nothing is computed.
    """
    # The counter cannot follow views of parameters that are made without gradients.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops() // 2
