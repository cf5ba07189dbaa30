"""Convolutions and the BatchNorms around them, computed as one convolution where that is exact."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


def is_fixed(norm: nn.Module) -> bool:
    """Tells whether a norm is a constant affine map now: BatchNorm in eval mode, or none."""
    return isinstance(norm, nn.Identity) or isinstance(norm, _BatchNorm) and not norm.training


def fixed_affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Returns scale and shift of each channel, C and C, of a BatchNorm in eval mode."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if not norm.affine:
        return scale, -norm.running_mean * scale
    scale = norm.weight * scale
    return scale, norm.bias - norm.running_mean * scale


def absorb_affine(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Moves an affine map into the layer behind it, linear or a 1x1 convolution.

    Args:
        weight: Of the layer, out x in (x 1 x 1).
        bias: Of the layer, or None.
        scale: Scale of each input channel.
        shift: Shift of each input channel, or None.

    Returns:
        The weight and bias with which the layer computes ``layer(scale * x + shift)`` from x.
    """
    if shift is not None:
        shift = weight.flatten(1) @ shift
        bias = shift if bias is None else bias + shift
    return weight * scale.view(1, -1, *(1,) * (weight.dim() - 2)), bias


def conv_norm(
    x: Tensor, conv: nn.Conv2d, norm: nn.Module, norm_before: nn.Module | None = None
) -> Tensor:
    """Computes ``norm(conv(norm_before(x)))``.

    Norms with fixed statistics (inference, ``norm_eval``, frozen stages) act on the weights instead
    of the map, which saves a pass over it and, in training, its copy. Their own parameters still
    get their gradients.

    Args:
        x: Map B, C, H, W.
        conv: The convolution; of size 1x1 if there is a norm before it.
        norm: BatchNorm behind it (or identity).
        norm_before: BatchNorm in front of it, if any; must be fixed.

    Returns:
        The map B, C', H', W'.
    """
    if not is_fixed(norm):
        # Without the norm behind it the weights of this pass are those of norm_before alone.
        weight, bias = _folded(conv, nn.Identity(), norm_before)
        return norm(_convolve(x, conv, weight, bias))
    return _convolve(x, conv, *_folded(conv, norm, norm_before))


@torch.no_grad()
def fold_norms(conv: nn.Conv2d, norm: nn.Module, norm_before: nn.Module | None = None) -> None:
    """Makes ``conv(x)`` compute ``norm(conv(norm_before(x)))`` for good; as :func:`conv_norm`."""
    weight, bias = _folded(conv, norm, norm_before)
    conv.weight.copy_(weight)
    if bias is not None:
        conv.bias = nn.Parameter(bias, requires_grad=conv.weight.requires_grad)


def _convolve(x: Tensor, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _folded(
    conv: nn.Conv2d, norm: nn.Module, norm_before: nn.Module | None
) -> tuple[Tensor, Tensor | None]:
    weight, bias = conv.weight, conv.bias
    if isinstance(norm_before, _BatchNorm):
        weight, bias = absorb_affine(weight, bias, *fixed_affine(norm_before))
    if isinstance(norm, _BatchNorm):
        scale, shift = fixed_affine(norm)
        bias = shift if bias is None else bias * scale + shift
        weight = weight * scale.view(-1, 1, 1, 1)
    return weight, bias
