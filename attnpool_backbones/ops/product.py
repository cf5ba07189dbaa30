"""Products of tokens and weights, by the library that computes them faster on this processor.

On a CPU PyTorch gives linear layers to MKL and convolutions to oneDNN. On some processors (AMD's
Zen 5) a 1x1 convolution over the same memory takes half the time of the product. On others (Zen 4)
both reach the same rate in the middle sizes, but oneDNN is ahead in large maps and computes an
activation along with the product. So it serves unless a measurement, once a process, tells that it
is clearly slower. Attention, for which PyTorch has a fused operator, is given to it only where it
is clearly faster.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.choice import CLEAR_LEAD, Choice, lead
from attnpool_backbones.ops.compiling import compiler_fuses, is_recorded, is_static
from attnpool_backbones.ops.onednn import (
    compiled_linear,
    linear_act,
    may_call_onednn,
    pointwise_dilation,
    pointwise_kernel,
    spares_casts,
)

SMALLEST_PRODUCT = 1 << 20
"""Multiply-accumulates below which a convolution's longer call outweighs its rate."""
SMALLEST_INPUT = 20480
"""Values of an image up to which PyTorch does not give its convolution to oneDNN."""
SMALLEST_MAP = 1 << 18
"""Values of a head's attention map from which one call a head is faster than one for all heads."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns ``x @ weight.T + bias``.

    Args:
        x: Tokens ..., C.
        weight: C', C.
        bias: C'. Default: none.

    Returns:
        ..., C'.
    """
    if not _is_convolved(x, weight):
        if spares_casts(x, weight, bias) and suits_onednn(x, weight):
            return linear_act(x, weight, bias)
        return F.linear(x, weight, bias)
    if may_call_onednn(x, weight, bias):
        return linear_act(x, weight, bias)
    if compiler_fuses():
        return _compiled_product(x, weight, bias)
    # Tokens as they lie are a channels_last map with one row of pixels.
    pixels = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # 1, C, 1, P
    y = pointwise(pixels, weight[:, :, None, None], bias)  # 1, C', 1, P
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)  # ..., C'


def _compiled_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Computes :func:`product` with gradients in a compiled graph."""
    # The compiler of torch 2.13 orders no strides of views that are kept for a backward pass of
    # any size.
    if not all(is_static(size) for size in x.shape):
        return compiled_linear(x, weight, bias)
    # A map stays one: reshaped, the compiler would copy it.
    pixels = x if x.dim() == 4 else x.flatten(0, -2)[None, :, None]  # B, H, W, C
    y = pointwise(pixels.permute(0, 3, 1, 2), pointwise_kernel(weight), bias)  # B, C', H, W
    y = y.permute(0, 2, 3, 1)
    return y if x.dim() == 4 else y.reshape(*x.shape[:-1], -1)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns a 1x1 convolution by oneDNN, which computes it in one thread, too.

    Args:
        x: Map B, C, H, W.
        weight: C', C, 1, 1.
        bias: C'. Default: none.

    Returns:
        B, C', H, W.
    """
    return F.conv2d(x, weight, bias, dilation=pointwise_dilation())


def needs_pointwise(x: Tensor, weight: Tensor) -> bool:
    """Tells whether a 1x1 convolution is slow where :func:`pointwise` is not.

    Args:
        x: Map B, C, H, W.
        weight: C', C, 1, 1.
    """
    if torch.compiler.is_compiling() or torch.get_num_threads() > 1:
        return False
    return _is_convolved(x, weight)


def multiplies_heads(q: Tensor, k: Tensor) -> bool:
    """Tells whether the maps of attention are faster computed head by head, by ``onednn_product``.

    Args:
        q: Queries ..., T, d, of which nobody wants gradients.
        k: Keys ..., N, d.
    """
    if q.device.type != 'cpu' or q.dtype != torch.float32 or k.dtype != torch.float32:
        return False
    if q.shape[-2] * k.shape[-2] < SMALLEST_MAP or not torch.backends.mkldnn.enabled:
        return False
    return is_convolution_chosen()


def _is_convolved(x: Tensor, weight: Tensor) -> bool:
    """Tells whether a product of tokens and a weight runs as a 1x1 convolution."""
    return _suits_convolution(x, weight) and is_convolution_chosen()


def suits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Tells whether oneDNN is the faster library for a product of tokens and a weight on a CPU.

    Args:
        x: Tokens ..., C.
        weight: C', C.
    """
    if x.dtype == torch.float32 and not torch.is_autocast_enabled('cpu'):
        return _is_convolved(x, weight)
    return x.numel() * len(weight) >= SMALLEST_PRODUCT  # PyTorch gives short types to it, too.


def _suits_convolution(x: Tensor, weight: Tensor) -> bool:
    # Exported graphs have linear layers, which other runtimes know, whatever the sizes are.
    if is_recorded() and not compiler_fuses():
        return False
    if x.device.type != 'cpu' or x.dtype != torch.float32 or x.numel() <= SMALLEST_INPUT:
        return False
    return x.numel() * len(weight) >= SMALLEST_PRODUCT and not torch.is_autocast_enabled('cpu')


def is_convolution_chosen() -> bool:
    """Tells whether large linear layers run as convolutions, which the first call measures."""
    return _convolves()


def outruns_fused_attention() -> bool:
    """Tells whether oneDNN's products are so much faster that attention is better built of them.

    PyTorch's fused operator has the BLAS library's products and spares passes over the maps.
    """
    return _outruns()


def choose_convolution(convolves: bool | None) -> None:
    """Sets what computes large float32 products on the CPU, in place of the measurement.

    Args:
        convolves: True for oneDNN, False for PyTorch's BLAS library, None to measure at the next
            call.
    """
    _convolves.decision = _outruns.decision = convolves


def onednn_lead(rounds: int = 9) -> float:
    """Measures the rate of oneDNN over that of the BLAS library, see :func:`choice.lead`.

    Products of 512 x 256 x 256 take a third of a millisecond each.

    Args:
        rounds: How often each library computes.
    """
    if not torch.backends.mkldnn.is_available():
        return 0.0
    x = torch.full((512, 256), 0.5, device='cpu', dtype=torch.float32)
    weight = torch.full((256, 256), 0.5, device='cpu', dtype=torch.float32)
    pixels, kernel = x.view(1, 1, 512, 256).permute(0, 3, 1, 2), weight[:, :, None, None]
    return lead(
        lambda: F.linear(x, weight),
        lambda: torch.mkldnn_convolution(pixels, kernel, None, (0, 0), (1, 1), (1, 1), 1),
        rounds,
    )


def _tell(convolves: bool, measured: float) -> str:
    kind = '1x1 convolutions' if convolves else 'products'
    return f'linear layers on the CPU run as {kind}: {_rate(measured)}'


def _tell_attention(outruns: bool, measured: float) -> str:
    kind = 'products of heads' if outruns else "PyTorch's fused operator"
    return f'attention on the CPU runs as {kind}: {_rate(measured)}'


def _rate(measured: float) -> str:
    return f'oneDNN computes products at {measured:.2f} times the rate of the BLAS library'


_convolves = Choice('linear layers', lambda: onednn_lead(), _tell, least=1 / CLEAR_LEAD)
_outruns = Choice('attention', lambda: onednn_lead(), _tell_attention)
