"""Parts of a computation that are at least float32, whatever autocast says."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(device: torch.device) -> AbstractContextManager:
    """Returns a context without autocast on a device."""
    if not _has_autocast(device.type):
        return nullcontext()
    # Outside of autocast its context is a good part of what a small operator costs.
    if not torch.compiler.is_compiling() and not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


# The compiler of torch 2.6 cannot read torch's own question.
@torch.compiler.assume_constant_result
def _has_autocast(device_type: str) -> bool:
    """Tells whether a kind of device knows autocast; the meta device does not."""
    return torch.amp.is_autocast_available(device_type)


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the type for maps, sums and statistics of values of a type: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def converted(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns values in a type, at the end of an ``autograd.Function``.

    The compiler of torch 2.11 takes such a result for one without gradients after a conversion that
    changes nothing.
    """
    return y if y.dtype == dtype else y.to(dtype)
