"""An MLP of many tokens, computed in parts."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from attnpool_backbones.layers.activations import GELU
from attnpool_backbones.layers.star_relu import SquaredReLU, StarReLU
from attnpool_backbones.ops import mlp as module
from attnpool_backbones.ops.mlp import mlp
from attnpool_backbones.ops.product import choose_convolution

SHAPES = [(101, 16), (2, 5, 11, 16), (1, 48, 16)]


@pytest.fixture
def parts(monkeypatch):
    """Notes the number of tokens in each part; few make many."""
    monkeypatch.setattr(module, 'MANY_TOKENS', 48)
    monkeypatch.setattr(module, 'TOKENS_AT_ONCE', 20)
    sizes, whole = [], module._mlp
    monkeypatch.setattr(
        module, '_mlp', lambda x, *a: sizes.append(x[..., 0].numel()) or whole(x, *a)
    )
    return sizes


@pytest.fixture(params=[True, False], ids=['convolution', 'product'])
def convolves(request):
    choose_convolution(request.param)
    yield
    choose_convolution(None)


def layers(act=GELU):
    return nn.Linear(16, 40), act(), nn.Linear(40, 16)


@torch.no_grad()
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('act', [GELU, StarReLU, SquaredReLU])
@pytest.mark.parametrize('scale', [None, torch.linspace(0.5, 2, 16)], ids=['', 'scale'])
def test_parts_give_the_whole(convolves, parts, shape, act, scale):
    x, args = torch.randn(shape), (*layers(act), scale)
    y, expected = mlp(x, *args), mlp.formula(x, *args)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    assert y.is_contiguous() and sum(parts) == x[..., 0].numel() and max(parts) == 20


@torch.no_grad()
def test_a_map_is_parted_as_it_lies(parts):
    x = torch.randn(2, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    args = layers()
    y = mlp(x.permute(0, 2, 3, 1), *args)
    torch.testing.assert_close(y, mlp.formula(x.permute(0, 2, 3, 1), *args))
    assert len(parts) == 7


@torch.no_grad()
def test_under_autocast(parts):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip('this processor has no bfloat16 instructions')
    x, args = torch.randn(60, 16), layers()
    with torch.autocast('cpu', torch.bfloat16):
        y, expected = mlp(x, *args), mlp.formula(x, *args)
    assert len(parts) == 3 and y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=3e-2, atol=3e-2)


def test_whole_where_it_is_small_or_somebody_watches(parts):
    x, (fc1, act, fc2) = torch.randn(60, 16), layers()
    mlp(x, fc1, act, fc2)  # gradients are wanted
    with torch.no_grad():
        mlp(x[:47], fc1, act, fc2)
        with FlopCounterMode(display=False) as counter:
            mlp(x, fc1, act, fc2)
        assert counter.get_total_flops() == 60 * 2 * 2 * 16 * 40
        seen = []
        hook = fc2.register_forward_hook(lambda layer, args, y: seen.append(len(y)))
        mlp(x, fc1, act, fc2)
        hook.remove()
        torch.compile(mlp, backend='eager', fullgraph=True)(x, fc1, act, fc2)
    assert seen == [60] and set(parts) <= {60, 47}
