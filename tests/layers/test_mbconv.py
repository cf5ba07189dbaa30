from itertools import product

import pytest
import torch
from torch import nn

from attnpool_backbones import ops
from attnpool_backbones.layers.mbconv import MBConv
from attnpool_backbones.layers.stride2_pool import STRIDE2_POOLS, stride2_pool


def build(in_channels=8, out_channels=12, stride=2, **options):
    pool = stride2_pool('avg2') if stride > 1 else None
    return MBConv(in_channels, out_channels, stride, pool=pool, **options)


@pytest.mark.parametrize('name', STRIDE2_POOLS)
@pytest.mark.parametrize('size', [(8, 6), (7, 5), (1, 1)])
def test_pools_halve_and_round_up(name, size):
    y = stride2_pool(name)(torch.ones(1, 2, *size))
    assert y.shape == (1, 2, -(-size[0] // 2), -(-size[1] // 2))
    assert (y == 1).all()  # nothing outside the map counts


@pytest.mark.parametrize('stride_in', ['1x1', 'dw', 'pool'])
@pytest.mark.parametrize('size', [(8, 6), (7, 5), (1, 1)])
def test_shape(stride_in, size):
    y = build(stride_in=stride_in).eval()(torch.randn(2, 8, *size))
    assert y.shape == (2, 12, -(-size[0] // 2), -(-size[1] // 2))


def test_identity_shortcut():
    block = build(8, 8, stride=1)
    nn.init.zeros_(block.project.weight)
    nn.init.zeros_(block.project.bias)
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(block(x), x)


OPTIONS = [
    dict(stride_in=stride_in, expand_from=expand_from, act_before=before, se_early=early)
    for stride_in, expand_from, before, early in product(
        ('1x1', 'dw', 'pool'), ('out', 'in'), (False, True), (False, True)
    )
]


@pytest.mark.parametrize('options', OPTIONS, ids=lambda o: '-'.join(map(str, o.values())))
@torch.no_grad()
def test_fixed_norms_and_folding_change_nothing(options):
    block = build(**options).double()
    x = torch.randn(3, 8, 7, 6, dtype=torch.double)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    block.eval()
    with ops.formulas():
        expected = block(x)
    torch.testing.assert_close(block(x), expected)
    block.fold()
    torch.testing.assert_close(block(x), expected)
    # Only what comes after an activation or before a gate is left.
    left = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(left) == options['act_before'] + options['se_early']


def test_norms_listed_first_leave_the_order_of_parameters():
    block = build()  # optimizers keep their state by this order
    assert next(iter(dict(block.named_children()))) == 'norm'
    assert next(iter(dict(block.named_parameters()))) == 'shortcut.weight'
    assert list(block.state_dict())[:2] == ['shortcut.weight', 'shortcut.bias']
    assert {id(child) for child in block.children()} == {id(m) for m in block._modules.values()}


def test_an_identity_as_first_norm_leaves_the_shortcut():
    block = build(8, 8, stride=1, act_before=True).eval()
    block.norm = nn.Identity()
    x = torch.randn(2, 8, 5, 5)
    expected = block(x.clone().requires_grad_()).detach()
    with torch.no_grad():
        torch.testing.assert_close(block(x.clone()), expected)
