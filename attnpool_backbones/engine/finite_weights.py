"""Which weights are not numbers any more."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ['non_finite_names']


def non_finite_names(weights: Mapping[str, Any], count: int = 5) -> list[str]:
    """Names the tensors of a state dict that hold NaN or infinity.

    Attention masks, tensors of nothing but 0 and infinity, are as they should be.

    Args:
        weights: Names and tensors; other values are passed over.
        count: How many names to return at most.
    """
    names = []
    for name, value in weights.items():
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            continue
        if torch.isfinite(value).all() or is_mask(value):
            continue
        names.append(str(name))
        if len(names) == count:
            break
    return names


def is_mask(value: Tensor) -> bool:
    """Tells whether a tensor holds 0 and infinity, and nothing else."""
    zeros = value == 0
    return bool(zeros.any() and (zeros | torch.isinf(value)).all())
