"""Parts of a computation that are at least float32, whatever autocast says."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager:
    """Returns a context without autocast on a device."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()  # the meta device has none


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the type for maps, sums and statistics of values of a type: at least float32."""
    return torch.promote_types(dtype, torch.float32)
