"""Copies from one layout to the other are copies, whatever the size."""

import pytest
import torch

from attnpool_backbones.ops.layout import (
    FEW_POSITIONS,
    channels_last_copy,
    contiguous_copy,
    contiguous_map,
)

SIZES = [(1, 64, 3, 5), (2, 80, 40, 50), (2, 20, 60, 41), (1, 3, 1, 3000), (1, 70, 90, 30)]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_copies(size, dtype):
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype)
    last = x.contiguous(memory_format=torch.channels_last)
    y, z = contiguous_copy(last), channels_last_copy(x)
    assert torch.equal(y, x) and y.is_contiguous()
    assert torch.equal(z, x) and z.is_contiguous(memory_format=torch.channels_last)


def test_sizes_are_on_both_sides_of_the_bound():
    assert len({size[2] * size[3] > FEW_POSITIONS for size in SIZES}) == 2


@pytest.mark.parametrize('last', [False, True])
def test_gradients_come_back_in_the_layout_of_the_map(last):
    x = torch.randn(1, 40, 50, 50).to(memory_format=torch.channels_last).requires_grad_()
    dy = torch.randn(1, 40, 50, 50)
    if last:
        dy = dy.to(memory_format=torch.channels_last)
    (dx,) = torch.autograd.grad(contiguous_map(x), x, dy)
    assert torch.equal(dx, dy) and dx.is_contiguous(memory_format=torch.channels_last)
