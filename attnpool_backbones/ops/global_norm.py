"""Normalisation over all channels and positions of a sample (arXiv 1803.08494, one group)."""

from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.formula import operator


@operator
def global_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: Tensor | None = None,
) -> Tensor:
    """Returns scale * (weight (x - mean) / sqrt(variance + eps) + bias).

    Args:
        x: Map B, C, H, W; mean and variance of a sample are over C, H and W.
        weight: C, or None.
        bias: C, or None.
        eps: Added to the variance.
        scale: One factor per channel, C. Default: 1.
    """
    mean = x.mean((1, 2, 3), keepdim=True)  # B, 1, 1, 1
    variance = (x - mean).square().mean((1, 2, 3), keepdim=True)
    y = (x - mean) / (variance + eps).sqrt()  # B, C, H, W
    if weight is not None:
        y = y * weight.view(-1, 1, 1)
    if bias is not None:
        y = y + bias.view(-1, 1, 1)
    return y if scale is None else y * scale.view(-1, 1, 1)


@global_norm.fast
def _(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: Tensor | None = None,
) -> Tensor:
    if scale is not None:
        weight = scale if weight is None else weight * scale
        bias = None if bias is None else bias * scale
    return F.group_norm(x, 1, weight, bias, eps)
