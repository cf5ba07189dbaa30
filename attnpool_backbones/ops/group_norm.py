"""Group normalisation (arXiv 1803.08494) by PyTorch, behind frozen layers too."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.compiling import is_recorded
from attnpool_backbones.ops.gradients import gradients_wanted

__all__ = ['group_norm']


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Returns ``F.group_norm``.

    On a CPU the gradient of a ``channels_last`` map that wants none ends the process: PyTorch
    (2.13) writes it all the same, where no memory is. Such a map is copied to contiguous memory.

    Args:
        x: Map B, C, H, W.
        groups: Groups of channels.
        weight: C, or None.
        bias: C, or None.
        eps: Added to the variance.
    """
    is_safe = x.device.type != 'cpu' or is_recorded() or x.requires_grad
    if is_safe or not gradients_wanted(weight, bias):
        return F.group_norm(x, groups, weight, bias, eps)
    is_last = not x.is_contiguous()
    x = x.clone(memory_format=torch.contiguous_format)
    y = F.group_norm(x, groups, weight, bias, eps)
    return y.contiguous(memory_format=torch.channels_last) if is_last else y
