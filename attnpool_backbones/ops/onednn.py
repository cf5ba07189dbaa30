"""Linear layers and convolutions by oneDNN itself, with the activation that follows them.

At inference an activation costs a pass over the map, on a CPU most of its time; oneDNN computes it
on the values as they leave its product. For few tokens (256 of 2048 channels) its linear layer is
up to 1.3 times as fast as its 1x1 convolution, for many as fast.

In compiled graphs linear layers of maps are 1x1 convolutions, which the compiler calls itself, and
those of other tokens operators of our own: the compiler's own by oneDNN want constant weights.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from attnpool_backbones.ops.compiling import compiler_fuses
from attnpool_backbones.ops.fusing import may_fuse
from attnpool_backbones.ops.gradients import gradients_wanted, is_transformed
from attnpool_backbones.ops.own_operator import own_operator

WIDER = 2
"""Dilation that a 1x1 kernel, which has one pixel, may have as well as 1."""
_NAMES = ((nn.GELU, 'gelu'), (nn.ReLU, 'relu'), (nn.SiLU, 'swish'))
"""What oneDNN calls activations."""


def may_call_onednn(*tensors: Tensor | None) -> bool:
    """Tells whether a layer may be given to oneDNN itself.

    Args:
        *tensors: Input, weight and bias of the layer.

    Returns:
        True for float32, and bfloat16 where the processor has its instructions, on a CPU where
        nobody watches: no backward pass, export, tracer or counter of operations.
    """
    if torch.compiler.is_compiling():
        if not compiler_fuses():
            return False
    elif torch.jit.is_tracing() or is_in_torch_dispatch_mode() or is_transformed():
        return False
    if gradients_wanted(*tensors) or not _is_enabled():
        return False
    given = [t for t in tensors if t is not None]
    if any(t.device.type != 'cpu' for t in given):
        return False
    types = [_type(t) for t in given]
    if all(t == torch.bfloat16 for t in types):
        return _has_bfloat16()
    return all(t == torch.float32 for t in types)


@torch.compiler.assume_constant_result
def _is_enabled() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled


@torch.compiler.assume_constant_result
def _has_bfloat16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


@torch.compiler.assume_constant_result
def pointwise_dilation() -> int:
    """Returns the dilation with which PyTorch gives a 1x1 convolution to oneDNN.

    It is 1 for several threads. Those of one thread PyTorch computes with the BLAS library, unless
    they are strided or dilated or of 16 images: :data:`WIDER`. Each process of a run of several has
    one thread, and so has each of two batches that are predicted at once.
    """
    return 1 if torch.get_num_threads() > 1 else WIDER


def has_activation(act: nn.Module | None) -> bool:
    """Tells whether oneDNN computes an activation and nobody watches it."""
    return act is not None and may_fuse(act) and isinstance(act, tuple(kind for kind, _ in _NAMES))


def linear_act(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, act: nn.Module | None = None
) -> Tensor:
    """Returns act(x @ weight.T + bias), where :func:`may_call_onednn`.

    Args:
        x: Tokens ..., C.
        weight: C', C.
        bias: C'. Default: none.
        act: An activation that oneDNN has. Default: none.
    """
    x, weight = (t.to(_type(t)) for t in (x, weight))
    if torch.compiler.is_compiling():
        bias = None if bias is None else bias.to(_type(bias))
        if x.dim() != 4 or x.shape[-1] == 1:
            return compiled_linear(x, weight, bias, *_attribute(act))
        name, kind = _attribute(act)
        sizes = [0, 0], [1, 1], [pointwise_dilation()] * 2, 1
        args = x.permute(0, 3, 1, 2), pointwise_kernel(weight), bias
        y = torch.ops.mkldnn._convolution_pointwise(*args, *sizes, name, [], kind)
        return y.permute(0, 2, 3, 1)
    if bias is not None and not casts_weights():
        bias = bias.to(_type(bias))
    return _linear(x, weight, bias, *_attribute(act))


def pointwise_kernel(weight: Tensor) -> Tensor:
    """Returns a linear layer's weight C', C as that of a 1x1 convolution, C', C, 1, 1.

    It lies in ``channels_last``, which tells oneDNN that the map does: a map of one sample may have
    a stride of 0 in a compiled graph, and would be copied.
    """
    return weight[:, None, None].permute(0, 3, 1, 2)


def conv_act(
    x: Tensor,
    conv: nn.Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    act: nn.Module | None = None,
) -> Tensor:
    """Returns act of a convolution, where :func:`may_call_onednn`.

    Args:
        x: Map B, C, H, W.
        conv: Gives stride, padding (zeros), dilation and groups.
        weight: In place of the convolution's.
        bias: Likewise, or None.
        act: An activation that oneDNN has. Default: none.
    """
    x = x.to(_type(x))
    if torch.compiler.is_compiling() or not casts_weights():
        weight, bias = (t if t is None else t.to(_type(t)) for t in (weight, bias))
    sizes = conv.padding, conv.stride, conv.dilation, conv.groups
    name, kind = _attribute(act)
    if torch.compiler.is_compiling():
        return _compiled_conv(x, weight, bias, *sizes, name, kind)
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *sizes, name, [], kind)


def spares_casts(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Tells whether this module's layers spare autocast's copies of weights or biases.

    Args:
        x: Input of the layer.
        weight: Its weight.
        bias: Its bias, or None.
    """
    if torch.compiler.is_compiling() or weight.dtype != torch.float32:
        return False
    return _type(weight) != weight.dtype and may_call_onednn(x, weight, bias) and casts_weights()


@functools.cache
def casts_weights() -> bool:
    """Tells whether oneDNN takes float32 weights and biases to bfloat16 maps.

    It lays weights out anew for its kernels anyway, so that another type costs nothing; autocast's
    copies are a tenth of a pass of many small layers. Biases are not rounded, and no copy of a
    weight is kept that might be out of date.
    """
    x = torch.ones(1, 16, 8, 8, dtype=torch.bfloat16, device='cpu')
    ones = torch.ones(16, dtype=torch.float32, device='cpu')
    kernel, rest = ones.repeat(16, 1), ((0, 0), (1, 1), (1, 1), 1, 'none', [], '')
    try:
        with torch.no_grad():
            y = torch.ops.mkldnn._convolution_pointwise(x, kernel[:, :, None, None], ones, *rest)
            tokens = x.flatten(2)[0].mT.contiguous()  # 64, 16
            z = _linear(tokens, kernel.to(x.dtype), ones, 'none', '')
    except RuntimeError:
        return False
    return all(t.dtype == x.dtype and bool((t == 17).all()) for t in (y, z))


def onednn_product(a: Tensor, b: Tensor) -> Tensor:
    """Returns a @ b.T, n, m, by oneDNN's linear layer, without gradients.

    Of the maps of attention it computes up to twice as many a second as the BLAS library.

    Args:
        a: n, k, float32 on a CPU.
        b: m, k, likewise.
    """
    return _linear(a, b, None, 'none', '')


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, act: str, kind: str) -> Tensor:
    # Its kernel for tokens that do not lie one after the other is a thousand times slower.
    args = x.contiguous(), weight.contiguous(), bias
    return torch.ops.mkldnn._linear_pointwise(*args, act, [], kind)


@own_operator('onednn_linear')
def compiled_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, act: str = 'none', kind: str = ''
) -> Tensor:
    """Returns act(x @ weight.T + bias) in a compiled graph.

    Args:
        x: Tokens ..., C.
        weight: C', C.
        bias: C', or None.
        act: oneDNN's name of the activation. Without one there are gradients.
        kind: Form of a GELU.
    """
    return _linear(x, weight, bias, act, kind)


@compiled_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, act: str = 'none', kind: str = '') -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


@own_operator('onednn_linear_weight_gradient')
def _weight_gradient(grad: Tensor, x: Tensor, has_bias: bool) -> tuple[Tensor, Tensor]:
    """Returns the gradients of weight and bias, C', C and C' (or 0), of a linear layer."""
    # By the convolution's kernel, the fastest there is: tokens are a map with one row of pixels.
    dy, x = (t.reshape(1, 1, -1, t.shape[-1]).permute(0, 3, 1, 2) for t in (grad, x))
    outputs, channels, dilation = dy.shape[1], x.shape[1], pointwise_dilation()
    _, dweight, dbias = torch.ops.aten.convolution_backward(
        dy, x, x.new_empty(outputs, channels, 1, 1), [outputs] if has_bias else None,
        [1, 1], [0, 0], [dilation] * 2, False, [0, 0], 1, [False, True, has_bias],
    )  # fmt: skip
    dweight = dweight.reshape(outputs, channels)
    return dweight.contiguous(), dbias if has_bias else grad.new_empty(0)


@_weight_gradient.register_fake
def _(grad: Tensor, x: Tensor, has_bias: bool) -> tuple[Tensor, Tensor]:
    outputs = grad.shape[-1]
    return grad.new_empty(outputs, x.shape[-1]), grad.new_empty(outputs if has_bias else 0)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, bias, act, _ = inputs
    if act != 'none':
        raise ValueError(f"oneDNN's linear layer with the activation {act!r} has no gradients")
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight)


def _differentiate(ctx: Any, grad: Tensor) -> tuple:
    x, weight = ctx.saved_tensors
    dx = dweight = dbias = None
    if ctx.needs_input_grad[0]:
        dx = compiled_linear(grad, weight.mT, None)
    if any(ctx.needs_input_grad[1:3]):
        dweight, dbias = _weight_gradient(grad, x, ctx.has_bias)
    return dx, dweight, dbias if ctx.has_bias else None, None, None


compiled_linear.register_autograd(_differentiate, setup_context=_save)


@own_operator('onednn_conv')
def _compiled_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    act: str,
    kind: str,
) -> Tensor:
    sizes = padding, stride, dilation, groups
    y = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *sizes, act, [], kind)
    return y.contiguous(memory_format=_layout(x))


@_compiled_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    padding, stride, dilation, groups = rest[:4]
    y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return torch.empty_like(y, memory_format=_layout(x))


def _layout(x: Tensor) -> torch.memory_format:
    """Returns the layout in which the compiler expects the map that a convolution makes of x."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _type(t: Tensor) -> torch.dtype:
    """Returns the type in which autocast, if it is on, computes with a tensor."""
    if t.dtype == torch.float32 and torch.is_autocast_enabled('cpu'):
        return torch.get_autocast_dtype('cpu')
    return t.dtype


def _attribute(act: nn.Module | None) -> tuple[str, str]:
    """Returns oneDNN's name of an activation and the form of a GELU."""
    if act is None:
        return 'none', ''
    name = next(name for kind, name in _NAMES if isinstance(act, kind))
    return name, act.approximate if isinstance(act, nn.GELU) else ''
