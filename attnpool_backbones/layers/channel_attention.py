"""What channel attention units share: vectors that stand for whole maps, squeezed."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


def squeezed_width(channels: int, reduction: int) -> int:
    """Returns ``channels // reduction``.

    Raises:
        ValueError: Nothing is left.
    """
    if channels // reduction < 1:
        raise ValueError(f'no bottleneck is left of {channels} channels, reduction={reduction}')
    return channels // reduction


def norm_of_vectors(norm: nn.Module, x: Tensor) -> Tensor:
    """Applies a norm to one vector per image.

    In training a batch of one image has no batch statistics; the running ones are used for it.

    Args:
        norm: BatchNorm or any other.
        x: B, C, 1, 1 or B, C.
    """
    of_batch = isinstance(norm, _BatchNorm) and not isinstance(norm, nn.SyncBatchNorm)
    if not of_batch or not norm.training or x.shape[0] > 1:
        return norm(x)
    return F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    )
