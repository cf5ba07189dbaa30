"""Layer normalisation over the channels of a map (arXiv 1607.06450)."""

from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.formula import operator


@operator
def layer_norm2d(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Returns weight (x - mean) / sqrt(variance + eps) + bias at each position.

    Args:
        x: Map B, C, H, W; mean and variance are over C.
        weight: C, or None.
        bias: C, or None.
        eps: Added to the variance.
    """
    mean = x.mean(1, keepdim=True)  # B, 1, H, W
    variance = (x - mean).square().mean(1, keepdim=True)
    y = (x - mean) / (variance + eps).sqrt()  # B, C, H, W
    if weight is not None:
        y = y * weight.view(-1, 1, 1)
    return y if bias is None else y + bias.view(-1, 1, 1)


@layer_norm2d.fast
def _(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    # A channels_last map is normalised where it lies; any other is copied once.
    y = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], weight, bias, eps)
    return y.permute(0, 3, 1, 2)
