import pytest
import torch
from torch.nn import functional as F

from attnpool_backbones.ops.re_attention import HeadMix, LazyMaps
from attnpool_backbones.registry import MODELS


def random_maps(blocks, dtype=torch.float64):
    maps = []
    for index in range(blocks):
        q, k = (torch.randn(2, 3, 7, 4, dtype=dtype, requires_grad=True) for _ in range(2))
        mix = None
        if index % 2:
            mix = HeadMix(torch.randn(3, 3, dtype=dtype), torch.randn(3, dtype=dtype))
        maps.append(LazyMaps(q, k, mix))
    return maps


@pytest.mark.parametrize('chunk_rows', [1, 3, 64])
def test_equals_the_plain_formula(chunk_rows):
    maps = random_maps(5)
    loss = MODELS.build(dict(type='AttentionSimilarityLoss', num_pairs=3, chunk_rows=chunk_rows))(
        maps
    )
    whole = [m.mixed() for m in maps[:4]]
    pairs = [F.cosine_similarity(whole[i], whole[i + 1], dim=1).mean() for i in range(3)]
    expected = 0.1 / 3 * sum(pairs)
    torch.testing.assert_close(loss, expected)

    leaves = [t for m in maps[:4] for t in (m.q, m.k)]
    torch.testing.assert_close(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves)
    )


def test_equal_maps_cost_the_whole_weight():
    maps = random_maps(1) * 4
    loss = MODELS.build(dict(type='AttentionSimilarityLoss', num_pairs=3, loss_weight=0.5))(maps)
    assert loss.item() == pytest.approx(0.5)


def test_too_few_blocks():
    loss = MODELS.build(dict(type='AttentionSimilarityLoss', num_pairs=3))
    with pytest.raises(ValueError, match='num_pairs=3 takes the maps of at least 4 blocks, not 3'):
        loss(random_maps(3))
