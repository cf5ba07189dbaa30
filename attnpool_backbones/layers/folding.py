"""Folding of per-channel affine transforms into a neighbouring layer, for inference."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attnpool_backbones.layers.conv_norm import absorb_affine, fixed_affine


@torch.no_grad()
def fold_norm_before(norm: nn.Module, layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """Moves a norm's affine part (BatchNorm: all of it) into the layer behind it.

    Args:
        norm: BatchNorm, a norm of each sample with ``weight`` and ``bias``, or one without.
        layer: A linear layer or a 1x1 convolution (with padding a shift would not fold).

    Returns:
        What is left of the norm.
    """
    if isinstance(norm, _BatchNorm):
        _fold_affine_before(layer, *fixed_affine(norm))
        return nn.Identity()
    if getattr(norm, 'weight', None) is not None:
        _fold_affine_before(layer, norm.weight, norm.bias)
        norm.weight = norm.bias = None
    return norm


def _fold_affine_before(layer: nn.Module, scale: Tensor, shift: Tensor | None) -> None:
    weight, bias = absorb_affine(layer.weight, layer.bias, scale, shift)
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)


@torch.no_grad()
def fold_scale_after(layer: nn.Module, scale: Tensor) -> None:
    """Makes ``layer(x)`` compute what ``scale * layer(x)`` did, ``scale`` per output channel.

    Args:
        layer: A convolution, a linear layer or the affine part of a norm.
        scale: Scale of each output channel.
    """
    layer.weight *= scale.view(-1, *(1,) * (layer.weight.dim() - 1))
    if layer.bias is not None:
        layer.bias *= scale
