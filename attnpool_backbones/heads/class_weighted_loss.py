"""Cross entropy with a weight for each class, over maps that may have pixels of no class."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnpool_backbones.registry import MODELS

__all__ = ['ClassWeightedCrossEntropyLoss']


@MODELS.register_module()
class ClassWeightedCrossEntropyLoss(nn.Module):
    """mmseg's cross entropy with `class_weight`, for label maps with pixels to be ignored, too.

    mmseg's own one looks up the weight of the label 255 and ends in an IndexError. Without such
    pixels both are the same number.

    Args:
        class_weight: A weight for each class. Default: None, all the same.
        loss_weight: Factor of the loss.
        loss_name: Name of the term; it has to begin with `loss_`.
    """

    def __init__(
        self,
        class_weight: Sequence[float] | None = None,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
    ) -> None:
        super().__init__()
        self.class_weight = None if class_weight is None else tuple(class_weight)
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = 255,
        **kwargs: Any,
    ) -> Tensor:
        """Computes the mean over all pixels that have a class, weighted by class.

        Args:
            cls_score: Logits, B, K, H, W.
            label: Classes, B, H, W.
            weight: Weights of the pixels, B, H, W. Default: None, all the same.
            ignore_index: Label of pixels without a class.
            **kwargs: What mmseg gives other losses.

        Returns:
            A number; 0 if no pixel has a class.
        """
        weights = cls_score.new_tensor(self.class_weight or (1.0,) * cls_score.shape[1])
        losses = functional.cross_entropy(
            cls_score, label, weight=weights, reduction='none', ignore_index=ignore_index
        )
        if weight is not None:
            losses = losses * weight.float()
        total = weights[label[label != ignore_index]].sum()
        return self.loss_weight * losses.sum() / (total + torch.finfo(torch.float32).eps)
