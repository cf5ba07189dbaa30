"""Linear layers and convolutions by oneDNN itself, with the activation that follows them.

At inference an activation costs a pass over the map, on a CPU most of its time; oneDNN computes it
on the values as they leave its product. For few tokens (256 of 2048 channels) its linear layer is
up to 1.3 times as fast as its 1x1 convolution, for many as fast.
"""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from attnpool_backbones.ops.fusing import may_fuse
from attnpool_backbones.ops.gradients import gradients_wanted
from attnpool_backbones.ops.own_operator import own_operator

_NAMES = ((nn.GELU, 'gelu'), (nn.ReLU, 'relu'), (nn.SiLU, 'swish'))
"""What oneDNN calls activations."""


def may_call_onednn(*tensors: Tensor | None) -> bool:
    """Tells whether a layer may be given to oneDNN itself.

    Args:
        *tensors: Input, weight and bias of the layer.

    Returns:
        True for float32, and bfloat16 where the processor has its instructions, on a CPU where
        nobody watches: no backward pass, compiler, tracer or counter of operations.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or is_in_torch_dispatch_mode():
        return False
    if gradients_wanted(*tensors) or not torch.backends.mkldnn.is_available():
        return False
    given = [t for t in tensors if t is not None]
    types = {_type(t) for t in given}
    if not torch.backends.mkldnn.enabled or any(t.device.type != 'cpu' for t in given):
        return False
    if types == {torch.bfloat16}:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return types == {torch.float32}


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
    x, weight, bias = (t if t is None else t.to(_type(t)) for t in (x, weight, bias))
    # Its kernel for tokens that do not lie one after the other is a thousand times slower.
    return torch.ops.mkldnn._linear_pointwise(
        x.contiguous(), weight.contiguous(), bias, *_attribute(act)
    )


@own_operator('onednn_linear')
def compiled_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Returns x @ weight.T + bias in a compiled graph at inference.

    The compiler's own layers by oneDNN want weights that are constants, and its 1x1 convolutions
    of tokens take half as long again (docs/speed).

    Args:
        x: Tokens ..., C.
        weight: C', C.
        bias: C', or None.
    """
    return linear_act(x, weight, bias)


@compiled_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


def conv_act(
    x: Tensor, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, act: nn.Module
) -> Tensor:
    """Returns act of a convolution, where :func:`may_call_onednn`.

    Args:
        x: Map B, C, H, W.
        conv: Gives stride, padding (zeros), dilation and groups.
        weight: In place of the convolution's.
        bias: Likewise, or None.
        act: An activation that oneDNN has.
    """
    x, weight, bias = (t if t is None else t.to(_type(t)) for t in (x, weight, bias))
    sizes = conv.padding, conv.stride, conv.dilation, conv.groups
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *sizes, *_attribute(act))


def _type(t: Tensor) -> torch.dtype:
    """Returns the type in which autocast, if it is on, computes with a tensor."""
    if t.dtype == torch.float32 and torch.is_autocast_enabled('cpu'):
        return torch.get_autocast_dtype('cpu')
    return t.dtype


def _attribute(act: nn.Module | None) -> tuple[str, list, str]:
    if act is None:
        return 'none', [], ''
    name = next(name for kind, name in _NAMES if isinstance(act, kind))
    return name, [], act.approximate if isinstance(act, nn.GELU) else ''
