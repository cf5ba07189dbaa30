"""What a training step of attention pooling keeps is what is told before it."""

import pytest
import torch

from attnpool_backbones.benchmark.kept_memory import kept_bytes
from attnpool_backbones.heads import AttentionPoolingHead

SIZES = [  # tokens, channels, images, side of the map
    (100, 64, 2, 7), (300, 16, 1, 3), (9, 32, 1, 3),  # no fewer tokens than positions
    (20, 32, 4, 5), (8, 32, 1, 3), (24, 16, 3, 5), (2, 48, 2, 6),
]  # fmt: skip


@pytest.mark.parametrize(('tokens', 'channels', 'batch', 'side'), SIZES)
def test_what_is_told_is_what_is_kept(tokens, channels, batch, side):
    head = AttentionPoolingHead(channels, tokens, per_class=True)
    x = torch.randn(batch, channels, side, side, requires_grad=True)
    largest_gradients = 2 * batch * tokens * 3 * channels
    told = head.pool.training_bytes(batch, side * side) // 4 - largest_gradients
    assert kept_bytes(head, x) // 4 == told


def test_tokens_cost_what_the_formula_says():
    pool = AttentionPoolingHead(384, 1000, per_class=True).pool
    few, one_more = (pool.training_bytes(8, 196, n) for n in (1, 2))
    assert one_more - few == 4 * (8 * ((9 + 4 * 3) * 384 + 196 + 4) + 4 * 384 + 2)
    many, one_more = (pool.training_bytes(8, 196, n) for n in (999, 1000))
    assert one_more - many == 4 * (8 * ((7 + 4 * 3) * 384 + 196 + 4) + 2 * 384 + 2)
    assert pool.training_bytes(8, 196) == one_more
