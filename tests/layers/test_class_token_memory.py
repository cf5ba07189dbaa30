"""What a training step of attention pooling keeps is what is told before it."""

import pytest
import torch

from attnpool_backbones.benchmark.kept_memory import kept_bytes
from attnpool_backbones.heads import AttentionPoolingHead


@pytest.mark.parametrize(
    ('tokens', 'channels', 'batch', 'side'), [(100, 64, 2, 7), (20, 32, 4, 5), (300, 16, 1, 3)]
)
def test_what_is_told_is_what_is_kept(tokens, channels, batch, side):
    head = AttentionPoolingHead(channels, tokens, per_class=True)
    x = torch.randn(batch, channels, side, side, requires_grad=True)
    largest_gradients = 2 * batch * tokens * 3 * channels
    told = head.pool.training_bytes(batch, side * side) // 4 - largest_gradients
    kept = kept_bytes(head, x) // 4
    # with fewer tokens than positions the keys and values are not computed
    assert kept == told if tokens >= side * side else 0.6 * told < kept <= told


def test_tokens_cost_what_the_formula_says():
    pool = AttentionPoolingHead(384, 1000, per_class=True).pool
    one, two = (pool.training_bytes(8, 196, n) for n in (1, 2))
    assert two - one == 4 * (8 * ((7 + 4 * 3) * 384 + 196 + 4) + 2 * 384 + 2)
    assert pool.training_bytes(8, 196) == one + 999 * (two - one)
