"""Keeps the attention maps of adjacent blocks apart (DeepViT's training code, arXiv 2103.11886)."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from attnpool_backbones.ops.re_attention import LazyMaps
from attnpool_backbones.registry import MODELS


@MODELS.register_module()
class AttentionSimilarityLoss(BaseModule):
    """Mean cosine similarity, along the heads, of the maps of blocks i and i + 1.

    ``loss_weight / num_pairs`` times the sum over the first ``num_pairs`` pairs, as DeepViT-32B was
    trained. The maps are those that multiply the values. A few query rows of two blocks are held at
    a time, in the backward pass, too::

        outputs, maps = backbone.forward_lazy_maps(images, num_blocks=13)
        losses['loss_similarity'] = AttentionSimilarityLoss()(maps)

    Args:
        loss_weight: Factor of the mean over the pairs.
        num_pairs: Pairs of adjacent blocks, from the first block on.
        chunk_rows: Query rows held at a time.
    """

    def __init__(self, loss_weight: float = 0.1, num_pairs: int = 12, chunk_rows: int = 64):
        super().__init__()
        self.loss_weight = loss_weight
        self.num_pairs = num_pairs
        self.chunk_rows = chunk_rows

    def forward(self, maps: Sequence[LazyMaps]) -> Tensor:
        """Computes the loss.

        Args:
            maps: Of the first ``num_pairs`` + 1 blocks or more, in order, with equal numbers of
                heads and tokens.

        Returns:
            A scalar.

        Raises:
            ValueError: Too few blocks.
        """
        if len(maps) <= self.num_pairs:
            raise ValueError(
                f'AttentionSimilarityLoss with num_pairs={self.num_pairs} takes the maps of at '
                f'least {self.num_pairs + 1} blocks, not {len(maps)}'
            )
        used = maps[: self.num_pairs + 1]
        pairs = (self._similarity(a, b) for a, b in zip(used[:-1], used[1:], strict=True))
        return self.loss_weight / self.num_pairs * sum(pairs)

    def _similarity(self, a: LazyMaps, b: LazyMaps) -> Tensor:
        batch, _, queries, _ = a.q.shape
        starts = range(0, queries, self.chunk_rows)
        sums = [
            checkpoint(_summed_similarity, a, b, slice(i, i + self.chunk_rows), use_reentrant=False)
            for i in starts
        ]
        return torch.stack(sums).sum() / (batch * queries * a.k.shape[2])


def _summed_similarity(a: LazyMaps, b: LazyMaps, rows: slice) -> Tensor:
    return F.cosine_similarity(a.mixed(rows), b.mixed(rows), dim=1).sum()
