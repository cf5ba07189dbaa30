import math

import pytest
import torch

from attnpool_backbones.layers.relative_bias import (
    RelativeBiasMlp,
    RelativeBiasTable,
    resize_bias_table,
)


def test_table_of_its_own_grid_is_as_stored():
    bias = RelativeBiasTable(2, (3, 4))
    table = bias(3, 4)
    assert table.shape == (2, 5, 7)
    rows = bias.relative_position_bias_table
    # Row (dh + H - 1) * (2W - 1) + (dw + W - 1) of the parameter is offset dh, dw.
    assert torch.equal(table[:, -1 + 2, 2 + 3], rows[(-1 + 2) * 7 + (2 + 3)])


@pytest.mark.parametrize('grid', [(6, 8), (2, 3), (1, 1), (3, 9)])
def test_resized_table_keeps_middle_and_symmetry(grid):
    table = torch.randn(2, 5, 7)
    table = table + table.flip(1, 2)
    resized = resize_bias_table(table, *grid)
    assert resized.shape == (2, 2 * grid[0] - 1, 2 * grid[1] - 1)
    torch.testing.assert_close(resized[:, grid[0] - 1, grid[1] - 1], table[:, 2, 3])
    torch.testing.assert_close(resized, resized.flip(1, 2))


def test_float64_keeps_its_digits():
    table = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: resize_bias_table(t, 4, 6, True), table)


def test_kernel_of_another_grid_keeps_its_sum():
    kernel = torch.randn(2, 7, 9) + 1
    resized = resize_bias_table(kernel, 12, 15, keep_sum=True)
    assert resized.shape == (2, 23, 29)
    torch.testing.assert_close(resized.sum((1, 2)), kernel.sum((1, 2)), rtol=0.2, atol=0)
    plain = resize_bias_table(kernel, 12, 15)
    torch.testing.assert_close(resized, plain * (4 * 5) / (12 * 15))


def test_gradient_passes_the_interpolation():
    bias = RelativeBiasTable(2, (3, 3))
    bias(5, 4).square().sum().backward()
    assert bias.relative_position_bias_table.grad.abs().min() > 0


def test_adapt():
    bias = RelativeBiasTable(2, (3, 3))
    value = torch.arange(81.0)[:, None].expand(81, 2)
    adapted = bias.adapt(value)
    assert adapted.shape == bias.relative_position_bias_table.shape
    torch.testing.assert_close(adapted[12], torch.tensor([40.0, 40.0]))
    assert bias.adapt(torch.zeros(80, 2)) is None  # not square
    assert bias.adapt(torch.zeros(16, 2)) is None  # not of a grid
    assert bias.adapt(torch.zeros(25, 3)) is None  # other heads


def test_mlp_of_logarithmic_offsets():
    bias = RelativeBiasMlp(3, hidden=8).eval()
    table = bias(4, 5)
    assert table.shape == (3, 7, 9)
    for dh, dw in [(0, 0), (-3, 4), (2, -1)]:
        log = [math.copysign(math.log1p(abs(d)), d) for d in (dh, dw)]
        expected = bias.fc2(bias.fc1(torch.tensor(log)).relu())
        torch.testing.assert_close(table[:, dh + 3, dw + 4], expected)


def test_mlp_drops_out_in_training_only():
    bias = RelativeBiasMlp(2, hidden=64)
    assert not torch.equal(bias(3, 3), bias(3, 3))
    bias.eval()
    assert torch.equal(bias(3, 3), bias(3, 3))
