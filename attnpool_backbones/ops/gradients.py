"""Whether a backward pass will follow, or derivatives are computed in another way."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def gradients_wanted(*tensors: Tensor | None) -> bool:
    """Tells whether gradients are recorded for any of the tensors.

    Where they are not, temporary maps may be overwritten: on a CPU fresh memory costs more than the
    arithmetic.
    """
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def is_transformed() -> bool:
    """Tells whether ``torch.func`` transforms what runs, or forward-mode derivatives are computed.

    No tensor need want gradients then. The answer for compiled code is the compiler's own affair.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
