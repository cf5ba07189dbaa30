"""Every operator keeps the operator contract on a GPU."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from attnpool_backbones.ops.mixed_attention import map_covariance, mixed_attention
from tests.ops.mmcv_rows import MMCV_ROWS
from tests.ops.rows import Draw
from tests.ops.table import ROWS
from tests.ops.test_contract import (
    SEEDS,
    assert_as_close_as_the_formula,
    assert_same,
    call,
    changed,
    copied,
    each_row,
    run,
)

if not torch.cuda.is_available():
    pytest.skip('needs a GPU', allow_module_level=True)

DEVICE = 'cuda'


def on_device(args: tuple) -> tuple:
    """Moves arguments, integers too; tensors that want gradients are leaves again."""

    def moved(a):
        if isinstance(a, nn.Module):
            return a.to(DEVICE)
        if isinstance(a, Tensor):
            return a.detach().to(DEVICE).requires_grad_(a.requires_grad)
        return a

    return tree_map(moved, args)


@each_row
def test_equals_its_formula(row):
    for seed in SEEDS:
        args = on_device(row.example(Draw(seed)))
        expected = run(row, row.operator.formula, copied(args))
        assert_same(run(row, row.operator, copied(args)), expected)
        with torch.no_grad():
            expected = call(row, row.operator.formula, copied(args))
            assert_same([call(row, row.operator, args)], [expected])


@pytest.mark.parametrize(
    'row',
    [row for row in ROWS if row.operator in (mixed_attention, map_covariance)],
    ids=lambda row: row.id,
)
def test_float32_is_as_exact(row):
    # float64, which the contract is told in, runs without the fused kernels.
    for seed in SEEDS:
        args = changed(on_device(row.example(Draw(seed))), lambda a: a.detach().float())
        single, double = (
            changed(args, lambda a, dtype=dtype: a.to(dtype).requires_grad_())
            for dtype in (torch.float32, torch.float64)
        )
        computed = run(row, lambda *inputs: row.operator(*inputs).double(), single)
        expected = run(row, row.operator.formula, double)
        for a, b in zip(computed, expected, strict=True):
            for x, y in zip(a, b, strict=True):
                scale = y.abs().max().clamp_min(1)
                assert (x - y).abs().max() <= 1e-4 * scale


@pytest.mark.parametrize('layout', [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize('row', [row for row in ROWS if row.layouts], ids=lambda row: row.id)
def test_layouts_change_nothing(row, layout):
    args = on_device(row.example(Draw(3)))
    expected = run(row, row.operator.formula, copied(args))

    def laid_out(a):
        if isinstance(a, nn.Module) or a.dim() != 4:
            return a
        return a.detach().contiguous(memory_format=layout).requires_grad_(a.requires_grad)

    assert_same(run(row, row.operator, changed(copied(args), laid_out)), expected)


KINDS = [
    *((row, torch.bfloat16, autocast) for row in ROWS for autocast in (False, True)),
    *((row, torch.float16, True) for row in ROWS),
    *((row, torch.float16, False) for row in MMCV_ROWS),
]


@pytest.mark.parametrize(
    ('row', 'narrow', 'autocast'),
    [
        pytest.param(*kind, id=f'{kind[0].id}-{kind[1]}{"-autocast" * kind[2]}')
        for kind in KINDS
        if kind[0].bfloat16
    ],
)
def test_narrow_types_are_as_close_as_the_formula(row, narrow, autocast):
    args = on_device(row.example(Draw(5)))
    assert_as_close_as_the_formula(row, args, DEVICE, narrow, autocast)
