"""Mixes the images of a batch and their labels: mixup (1710.09412) and CutMix (1905.04899)."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ['BatchMixing']


class BatchMixing:
    """Mixes a batch with itself in reverse order, by one of two methods.

    A batch is mixed by mixup or by CutMix, either with the same probability if both are wanted. The
    share of an image is drawn from Beta(a, a).

    Args:
        mixup: a of mixup; 0: none. Default: 0.8, as DeiT has it (arXiv 2012.12877, table 9).
        cutmix: a of CutMix; 0: none. Default: 1.
        prob: Probability that a batch is mixed. Default: 1.

    Raises:
        ValueError: Neither is wanted, or a number is out of its range.
    """

    def __init__(self, mixup: float = 0.8, cutmix: float = 1.0, prob: float = 1.0):
        if mixup < 0 or cutmix < 0 or not (mixup or cutmix) or not 0 <= prob <= 1:
            raise ValueError(
                f'mixing needs mixup or cutmix above 0 and prob from 0 to 1, not mixup={mixup}, '
                f'cutmix={cutmix}, prob={prob}'
            )
        self.mixup, self.cutmix, self.prob = mixup, cutmix, prob

    def __call__(self, inputs: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Mixes a batch.

        Args:
            inputs: Images B, 3, H, W; left as they are.
            labels: B.
            classes: How many there are, K.

        Returns:
            Images, and the share of each class, B, K.
        """
        targets = functional.one_hot(labels.long(), classes).to(inputs.dtype)
        if torch.rand(()) >= self.prob:
            return inputs, targets
        cuts = self.cutmix and (not self.mixup or torch.rand(()) < 0.5)
        alpha = torch.tensor(float(self.cutmix if cuts else self.mixup))
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        if cuts:
            inputs, share = self._cut(inputs, share)
        else:
            inputs = inputs * share + inputs.flip(0) * (1 - share)
        return inputs, targets * share + targets.flip(0) * (1 - share)

    def _cut(self, inputs: Tensor, share: float) -> tuple[Tensor, float]:
        """Pastes a rectangle of the other image; returns the share that is left of the own one."""
        sides = []
        for side in inputs.shape[2:]:
            half = side * (1 - share) ** 0.5 / 2
            centre = int(torch.randint(side, ()))
            sides.append((max(round(centre - half), 0), min(round(centre + half), side)))
        (top, bottom), (left, right) = sides
        inputs = inputs.clone()
        # of a copy: the flip is one
        inputs[..., top:bottom, left:right] = inputs.flip(0)[..., top:bottom, left:right]
        height, width = inputs.shape[2:]
        return inputs, 1 - (bottom - top) * (right - left) / (height * width)
