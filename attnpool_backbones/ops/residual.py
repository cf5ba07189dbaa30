"""The end of a residual block: scaled branch and shortcut, joined."""

import torch
from torch import Tensor, nn

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.fusing import may_fuse


@operator
def residual(
    x: Tensor | None,
    y: Tensor,
    drop_path: nn.Module,
    layer_scale: Tensor | None = None,
    res_scale: Tensor | None = None,
) -> Tensor:
    """Returns res_scale * x + drop_path(layer_scale * y).

    Args:
        x: Shortcut B, C, H, W. None: there is none.
        y: Branch B, C, H, W.
        drop_path: Stochastic depth (arXiv 1603.09382); drops the branches of samples.
        layer_scale: One factor per channel (arXiv 2103.17239), C. Default: 1.
        res_scale: One factor per channel (arXiv 2110.09456), C. Default: 1.
    """
    if layer_scale is not None:
        y = y * layer_scale.view(-1, 1, 1)
    y = drop_path(y)
    if x is None:
        return y
    return (x if res_scale is None else x * res_scale.view(-1, 1, 1)) + y


@residual.fast
def _(
    x: Tensor | None,
    y: Tensor,
    drop_path: nn.Module,
    layer_scale: Tensor | None = None,
    res_scale: Tensor | None = None,
) -> Tensor:
    if not may_fuse(drop_path):
        return residual.formula(x, y, drop_path, layer_scale, res_scale)
    gain = None if layer_scale is None else layer_scale.view(1, -1, 1, 1)
    if drop_path.training and drop_path.drop_prob > 0:
        # Dropped as factors of the samples, B, 1 or C, 1, 1, not as a map.
        gain = y.new_ones(1, 1, 1, 1) if gain is None else gain
        gain = drop_path(gain.expand(len(y), -1, -1, -1))
    if x is None:
        return y if gain is None else y * gain
    if res_scale is not None:
        y = y if gain is None else y * gain
        return torch.addcmul(y, x, res_scale.view(-1, 1, 1))
    return x + y if gain is None else torch.addcmul(x, y, gain)
