"""The end of a residual block is what its two steps are, gradients included."""

import pytest
import torch

from attnpool_backbones.ops.relu_of_sum import relu_of_sum_


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('frozen', [None, 0, 1])
@pytest.mark.parametrize('last', [False, True])
def test_values_and_gradients(dtype, frozen, last):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 8, 5, 7, generator=generator).to(dtype) for _ in range(2)]
    if last:
        maps[0] = maps[0].to(memory_format=torch.channels_last)
    weight = torch.linspace(-1, 1, maps[0].numel()).view_as(maps[0]).to(dtype)
    results = []
    for function in (relu_of_sum_, lambda x, shortcut: torch.relu(x + shortcut)):
        leaves = [m.clone().requires_grad_(i != frozen) for i, m in enumerate(maps)]
        y = function(leaves[0] * 1, leaves[1])
        (y * weight).sum().backward()
        results.append((y, *(leaf.grad for leaf in leaves if leaf.requires_grad)))
    for computed, expected in zip(*results, strict=True):
        torch.testing.assert_close(computed, expected, rtol=0, atol=0)


def test_memory_of_the_map_is_taken():
    x, shortcut = torch.ones(1, 2, 3, 4), torch.full((1, 2, 3, 4), -3.0)
    y = relu_of_sum_(x, shortcut)
    assert y.data_ptr() == x.data_ptr() and not y.any() and (shortcut == -3).all()
