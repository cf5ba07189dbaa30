"""Whether a backward pass will follow."""

import torch
from torch import Tensor


def gradients_wanted(*tensors: Tensor | None) -> bool:
    """Tells whether gradients are recorded for any of the tensors.

    Where they are not, temporary maps may be overwritten: on a CPU fresh memory costs more than the
    arithmetic.
    """
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
