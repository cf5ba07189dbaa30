"""Folding of per-channel affine transforms into a neighbouring layer, for inference."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def fold_affine_before(conv: nn.Conv2d | nn.Linear, scale: Tensor, shift: Tensor) -> None:
    """Makes ``conv(x)`` compute what ``conv(scale * x + shift)`` did.

    Args:
        conv: A linear layer or a 1x1 convolution, with a bias (with padding a shift would not
            fold).
        scale: Scale of each input channel.
        shift: Shift of each input channel.
    """
    conv.bias += conv.weight.flatten(1) @ shift
    conv.weight *= scale.view(1, -1, *(1,) * (conv.weight.dim() - 2))


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
