"""Convolutions and what stands around them: norms and scales, folded in where that is exact."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attnpool_backbones.ops.compiling import compiler_fuses
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.fusing import does_nothing, folding_pays, may_fuse, own
from attnpool_backbones.ops.gradients import gradients_wanted
from attnpool_backbones.ops.linear import scaled
from attnpool_backbones.ops.onednn import conv_act, has_activation, may_call_onednn, spares_casts
from attnpool_backbones.ops.product import needs_pointwise, pointwise
from attnpool_backbones.ops.residual import residual


@operator
def conv_norm(
    x: Tensor,
    conv: nn.Conv2d,
    norm: nn.Module | None = None,
    norm_before: nn.Module | None = None,
    pool: nn.Module | None = None,
    act: nn.Module | None = None,
) -> Tensor:
    """Returns act(norm(conv(pool(norm_before(x))))).

    BatchNorms with fixed statistics (inference, ``norm_eval``, frozen stages) act on the weights
    instead of the map where that is less work: it saves a pass over the map and, in training, its
    copy. One after the convolution is left to a compiler. Their own parameters still get their
    gradients. At inference on a CPU the activation needs no pass either.

    Args:
        x: Map B, C, H, W.
        conv: The convolution; of size 1x1 if there is a norm before it.
        norm: Norm after it, or identity. Default: none.
        norm_before: Norm before it. Default: none.
        pool: Average pooling between ``norm_before`` and ``conv``. Default: none.
        act: Activation at the end; may overwrite its input. Default: none.

    Returns:
        The map B, C', H', W'.
    """
    if norm_before is not None:
        x = norm_before(x)  # B, C, H, W
    if pool is not None:
        x = pool(x)
    y = conv(x)  # B, C', H', W'
    if norm is not None:
        y = norm(y)
    return y if act is None else act(y)


@operator
def conv_residual(
    x: Tensor, y: Tensor, conv: nn.Conv2d, drop_path: nn.Module, scale: Tensor | None = None
) -> Tensor:
    """Returns x + drop_path(scale * conv(y)), the end of a residual block.

    Args:
        x: Shortcut B, C', H', W'.
        y: Map B, C, H, W.
        conv: The convolution.
        drop_path: Stochastic depth (arXiv 1603.09382); drops the branches of samples.
        scale: One factor per output channel (arXiv 2103.17239), C'. Default: 1.
    """
    y = conv(y)  # B, C', H', W'
    return x + drop_path(y if scale is None else y * scale.view(-1, 1, 1))


@conv_norm.fast
def _(
    x: Tensor,
    conv: nn.Conv2d,
    norm: nn.Module | None = None,
    norm_before: nn.Module | None = None,
    pool: nn.Module | None = None,
    act: nn.Module | None = None,
) -> Tensor:
    if not may_fuse(conv):
        y = conv_norm.formula(x, conv, norm, norm_before, pool)
        return y if act is None else act(own(y, conv, norm))
    norm = None if does_nothing(norm) else norm
    weight, bias = conv.weight, conv.bias
    pays = folding_pays(x, weight, _positions(x, conv))
    if norm_before is not None and pays and is_fixed(norm_before) and may_fuse(norm_before):
        # A constant affine map may change places with an average.
        weight, bias = absorb_affine(weight, bias, *fixed_affine(norm_before))
    elif norm_before is not None:
        x = norm_before(x)
    if pool is not None:
        x = pool(x)
    folds = norm is not None and is_fixed(norm) and may_fuse(norm)
    activates = (
        (folds or norm is None)
        and _is_plainly_padded(conv)
        and has_activation(act)
        and may_call_onednn(x, weight, bias, *(norm.parameters() if folds else ()))
    )
    # A compiler computes a norm along with the activation or sum after it, so no pass is saved.
    if folds and (activates or pays and not compiler_fuses()):
        weight, bias = _before_norm(weight, bias, norm)
        norm = None
    if activates:
        return conv_act(x, conv, weight, bias, act)
    y = _convolve(x, conv, weight, bias)
    if norm is not None:
        y = norm(y)
    return y if act is None else act(y if norm is None else own(y, norm))


@conv_residual.fast
def _(
    x: Tensor, y: Tensor, conv: nn.Conv2d, drop_path: nn.Module, scale: Tensor | None = None
) -> Tensor:
    if not may_fuse(conv):
        return residual(x, conv(y), drop_path, scale)
    weight, bias = conv.weight, conv.bias
    # At inference the sum takes the factor along; in training scaling the weight saves a pass over
    # the map and its copy for the backward pass.
    trains = scale is not None and gradients_wanted(x, y, scale, *conv.parameters())
    if trains and folding_pays(y, weight, _positions(y, conv)):
        (weight, bias), scale = scaled(weight, bias, scale), None
    return residual(x, _convolve(y, conv, weight, bias), drop_path, scale)


def _positions(x: Tensor, conv: nn.Conv2d) -> int:
    """Returns about how many positions of all images a convolution of maps B, C, H, W has."""
    height, width = (size // stride for size, stride in zip(x.shape[2:], conv.stride, strict=True))
    return x.shape[0] * height * width


def _is_plainly_padded(conv: nn.Conv2d) -> bool:
    return conv.padding_mode == 'zeros' and not isinstance(conv.padding, str)


def _convolve(x: Tensor, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> Tensor:
    if _is_pointwise(conv) and needs_pointwise(x, weight):
        return pointwise(x, weight, bias)
    if _is_plainly_padded(conv) and spares_casts(x, weight, bias):
        return conv_act(x, conv, weight, bias)
    if weight is conv.weight and bias is conv.bias:
        return conv(x)
    return conv._conv_forward(x, weight, bias)  # which pads as the layer does


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return (*conv.kernel_size, *conv.stride, conv.groups) == (1,) * 5 and conv.padding == (0, 0)


def is_fixed(norm: nn.Module) -> bool:
    """Tells whether a norm is a constant affine map now: BatchNorm in eval mode."""
    return isinstance(norm, _BatchNorm) and not norm.training and norm.running_var is not None


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
    """Moves an affine map into the layer after it, linear or a 1x1 convolution.

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


def _before_norm(weight: Tensor, bias: Tensor | None, norm: _BatchNorm) -> tuple:
    scale, shift = fixed_affine(norm)
    return weight * scale.view(-1, 1, 1, 1), shift if bias is None else bias * scale + shift
