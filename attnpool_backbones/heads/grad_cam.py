"""Where a classifier of a map looks, from its gradients (Grad-CAM, arXiv 1610.02391)."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ['grad_cam']


def grad_cam(classify: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Returns relu(sum_c a_kc x_c), a_kc the mean over positions of d logit_k / d x_c (eq. 1, 2).

    The library `grad-cam` is not used because it imports torchvision.

    Args:
        classify: Maps B, C, H, W to logits B, K.
        x: Feature maps B, C, H, W.

    Returns:
        Maps B, K, H, W from 0 on, without gradients.
    """
    # in inference mode enable_grad alone does nothing, and its tensors take no part in gradients
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        logits = classify(x)
        maps = []
        for k in range(logits.shape[1]):
            (gradient,) = torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)
            maps.append((gradient.mean((2, 3), keepdim=True) * x).sum(1))  # B, H, W
        return torch.stack(maps, dim=1).relu().detach()
