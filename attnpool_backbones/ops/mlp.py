"""The two-layer MLP of a block."""

import torch
from torch import Tensor, nn

from attnpool_backbones.ops.compiling import compiler_fuses
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.fusing import folding_pays, may_fuse, own
from attnpool_backbones.ops.linear import linear, scaled
from attnpool_backbones.ops.onednn import has_activation, linear_act, may_call_onednn
from attnpool_backbones.ops.product import product, suits_onednn
from attnpool_backbones.ops.star_relu import absorb_star_relu, squared_relu


@operator
def mlp(
    x: Tensor, fc1: nn.Linear, act: nn.Module, fc2: nn.Linear, scale: Tensor | None = None
) -> Tensor:
    """Returns scale * fc2(act(fc1(x))).

    Args:
        x: Tokens ..., C.
        fc1: First layer, C to D.
        act: Activation; may overwrite its input.
        fc2: Second layer, D to C'.
        scale: One factor per output channel, C'. Default: 1.

    Returns:
        ..., C'.
    """
    y = fc2(act(fc1(x)))  # ..., C'
    return y if scale is None else y * scale


MANY_TOKENS = 8192
"""Tokens from which a CPU that keeps nothing for a backward pass computes them in parts."""
TOKENS_AT_ONCE = 4096
"""Tokens of a part. Their hidden values stay in the caches; fresh memory for those of 67200 tokens,
64 to 256 channels, takes as long as both products."""


@mlp.fast
def _(
    x: Tensor, fc1: nn.Linear, act: nn.Module, fc2: nn.Linear, scale: Tensor | None = None
) -> Tensor:
    if not _is_parted(x, fc1, act, fc2):
        return _mlp(x, fc1, act, fc2, scale)
    parts = x.reshape(-1, x.shape[-1]).split(TOKENS_AT_ONCE)
    y = torch.cat([_mlp(part, fc1, act, fc2, scale) for part in parts])
    return y.view(*x.shape[:-1], -1)


def _is_parted(x: Tensor, fc1: nn.Linear, act: nn.Module, fc2: nn.Linear) -> bool:
    if torch.compiler.is_compiling() or not may_fuse(fc1, act, fc2):
        return False
    parameters = (p for layer in (fc1, act, fc2) for p in layer.parameters())
    return may_call_onednn(x, *parameters) and x.numel() // x.shape[-1] >= MANY_TOKENS


def _mlp(
    x: Tensor, fc1: nn.Linear, act: nn.Module, fc2: nn.Linear, scale: Tensor | None = None
) -> Tensor:
    y = _activated(x, fc1, act)  # ..., D
    if y is not None:
        return linear(y, fc2, scale)
    y = own(linear(x, fc1), fc1)  # ..., D
    # Anything but a StarReLU; a compiler computes that in its one pass anyway.
    absorbs = hasattr(act, 'scale') and may_fuse(act, fc2) and not compiler_fuses()
    if not (absorbs and folding_pays(x, fc2.weight.mT, x.numel() // x.shape[-1])):
        return linear(act(y), fc2, scale)
    # Scale and shift of a StarReLU go into the weights: a pass over D channels costs more, and a
    # map less is kept for the backward pass.
    weight, bias = absorb_star_relu(fc2.weight, fc2.bias, act.scale, act.bias)
    if scale is not None:
        weight, bias = scaled(weight, bias, scale)
    return product(squared_relu(y), weight, bias)


def _activated(x: Tensor, layer: nn.Linear, act: nn.Module) -> Tensor | None:
    """Returns act(layer(x)), ..., D, or None where oneDNN cannot compute both at once."""
    if not (may_fuse(layer) and has_activation(act)):
        return None
    args = x, layer.weight, layer.bias
    return linear_act(*args, act) if may_call_onednn(*args) and suits_onednn(*args[:2]) else None
