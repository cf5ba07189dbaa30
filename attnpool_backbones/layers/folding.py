"""Folding of per-channel affine transforms into a neighbouring layer, for inference.

Only plain layers without hooks are folded (see :mod:`attnpool_backbones.ops.fusing`): what an
adapter adds to a layer would not be scaled, and a hook may write a weight anew, as those of pruning
and of the old weight norm do. Everything else stays as it is and computes the same.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attnpool_backbones.ops.conv_norm import absorb_affine, fixed_affine, is_fixed
from attnpool_backbones.ops.fusing import may_fuse
from attnpool_backbones.ops.linear import scaled


@torch.no_grad()
def fold_norm_before(norm: nn.Module, layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """Moves a norm's affine part (BatchNorm: all of it) into the layer after it.

    Args:
        norm: BatchNorm, a norm of each sample with ``weight`` and ``bias``, or one without.
        layer: A linear layer or a 1x1 convolution (with padding a shift would not fold).

    Returns:
        What is left of the norm.
    """
    if not may_fuse(norm, layer):
        return norm
    if isinstance(norm, _BatchNorm):
        if not is_fixed(norm):
            return norm
        _fold_affine_before(layer, *fixed_affine(norm))
        return nn.Identity()
    if getattr(norm, 'weight', None) is not None:
        _fold_affine_before(layer, norm.weight, norm.bias)
        norm.weight = norm.bias = None
    return norm


def _fold_affine_before(layer: nn.Module, scale: Tensor, shift: Tensor | None) -> None:
    _set(layer, *absorb_affine(layer.weight, layer.bias, scale, shift))


@torch.no_grad()
def fold_norm_after(layer: nn.Conv2d, norm: nn.Module) -> nn.Module:
    """Moves a BatchNorm into the convolution before it.

    Args:
        layer: A convolution.
        norm: BatchNorm in eval mode; any other stays.

    Returns:
        What is left of the norm.
    """
    if not is_fixed(norm) or not may_fuse(norm, layer):
        return norm
    scale, shift = fixed_affine(norm)
    weight, bias = scaled(layer.weight, layer.bias, scale)
    _set(layer, weight, shift if bias is None else bias + shift)
    return nn.Identity()


@torch.no_grad()
def fold_scale_after(layer: nn.Module, scale: Tensor) -> Tensor | None:
    """Makes ``layer(x)`` compute what ``scale * layer(x)`` did, ``scale`` per output channel.

    Args:
        layer: A convolution, a linear layer or the affine part of a norm.
        scale: Scale of each output channel.

    Returns:
        What is left of the scale: nothing, unless the layer may not be folded.
    """
    if not may_fuse(layer):
        return scale
    _set(layer, *scaled(layer.weight, layer.bias, scale))
    return None


def _set(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    layer.weight.copy_(weight)
    if layer.bias is not None:
        layer.bias.copy_(bias)
    elif bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=layer.weight.requires_grad)
