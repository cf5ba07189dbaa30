"""Statistics over the batches of all processes, as ``nn.SyncBatchNorm`` takes them."""

from typing import Any

import torch
from torch import Tensor, distributed, nn


def synchronised_group(norm: nn.Module) -> Any | None:
    """Returns the processes over whose batches a norm takes statistics, None for this one alone."""
    if not (isinstance(norm, nn.SyncBatchNorm) and norm.training):
        return None
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    group = norm.process_group or distributed.group.WORLD
    return group if distributed.get_world_size(group) > 1 else None


@torch.compiler.disable
def joined_moments(
    average: float, covariance: Tensor, count: int, group: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Joins the moments of several processes' values; every process of the group has to call it.

    Args:
        average: Average of the values of this process, the same for all of the H variables.
        covariance: H, H, about ``average``. Its gradient is the sum over the processes.
        count: Values of each variable, at least 1.
        group: The processes.

    Returns:
        The same of the values of all processes: two scalars and H, H.
    """
    # float64: the averages' own variance is a small difference
    moments = covariance.new_tensor([1, average, average**2], dtype=torch.float64)
    moments = torch.cat([moments, covariance.double().flatten()])
    sums = _Sum.apply(moments * count, group)
    total = sums[0]
    average, square = sums[1] / total, sums[2] / total
    joined = sums[3:].view_as(covariance) / total + (square - average**2)
    return average.to(covariance.dtype), joined.to(covariance.dtype), total


class _Sum(torch.autograd.Function):
    """Sum over processes; what a process's value does to the results of all is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(grad, ctx.group), None
