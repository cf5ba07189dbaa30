"""Linear layers over channels: all those over tokens and maps come through here."""

from torch import Tensor, nn

from attnpool_backbones.ops.compiling import compiler_fuses
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.fusing import folding_pays, may_fuse
from attnpool_backbones.ops.product import product


@operator
def linear(x: Tensor, layer: nn.Linear, scale: Tensor | None = None) -> Tensor:
    """Returns scale * layer(x).

    Args:
        x: Tokens ..., C.
        layer: From C to C' channels.
        scale: One factor per output channel, C'. Default: 1.

    Returns:
        ..., C'.
    """
    y = layer(x)  # ..., C'
    return y if scale is None else y * scale


@linear.fast
def _(x: Tensor, layer: nn.Linear, scale: Tensor | None = None) -> Tensor:
    if not may_fuse(layer):
        return linear.formula(x, layer, scale)
    weight, bias = layer.weight, layer.bias
    if scale is None:
        return product(x, weight, bias)
    # A compiler takes the factor along with what follows.
    if compiler_fuses() or not folding_pays(x, weight, x.numel() // x.shape[-1]):
        return product(x, weight, bias) * scale
    # Scaling the weights saves a pass over the tokens and their copy.
    return product(x, *scaled(weight, bias, scale))


def scaled(weight: Tensor, bias: Tensor | None, scale: Tensor) -> tuple[Tensor, Tensor | None]:
    """Returns weight and bias of the layer times a factor per output channel."""
    weight = weight * scale.view(-1, *(1,) * (weight.dim() - 1))
    return weight, None if bias is None else bias * scale
