"""Sums over few channels a group, and values repeated for them, by oneDNN's products."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attnpool_backbones.ops import channel_groups
from attnpool_backbones.ops.channel_groups import group_sums, repeated, suits_products
from attnpool_backbones.ops.sge import CHUNK_BYTES, sge

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason='PyTorch was built without oneDNN'
)


@pytest.fixture
def products(monkeypatch):
    """Counts products."""
    calls = []
    product = channel_groups._product
    monkeypatch.setattr(
        channel_groups, '_product', lambda *args: calls.append(args) or product(*args)
    )
    return calls


@needs_onednn
@pytest.mark.parametrize('groups', [16, 64])
@pytest.mark.parametrize('channels', [2, 4, 8])
def test_sums_and_repeats(groups, channels):
    x, factors = torch.randn(1, 50, groups, channels), torch.randn(1, 1, groups, channels)
    assert suits_products(x) and suits_products(x[..., :1], channels)
    torch.testing.assert_close(group_sums(x), x.sum(3, keepdim=True))
    torch.testing.assert_close(group_sums(x, factors), (x * factors).sum(3, keepdim=True))
    assert torch.equal(repeated(x[..., :1].contiguous(), channels), x[..., :1].expand_as(x))


@pytest.mark.parametrize(
    'x',
    [
        torch.zeros(1, 5, 16, 4, dtype=torch.float64),
        torch.zeros(1, 5, 16, 4, dtype=torch.bfloat16),
        torch.zeros(1, 5, 12, 4),
        torch.zeros(1, 5, 16, 1),
        torch.zeros(1, 5, 16, 16),
        torch.zeros(1, 5, 16, 4, device='meta'),
        torch.zeros(1, 5, 16, 4, requires_grad=True),
    ],
    ids=['float64', 'bfloat16', '12 groups', '1 channel', '16 channels', 'meta', 'gradients'],
)
def test_what_products_do_not_suit(x):
    assert not suits_products(x)


@pytest.mark.parametrize('width', [4, 8, 12])
@pytest.mark.parametrize(
    'dtype, shortcut',
    # of bfloat16 without: rounding decides about the ReLU of values near 0
    [(torch.float32, True), (torch.float32, False), (torch.bfloat16, False)],
)
@pytest.mark.parametrize('chunk', [CHUNK_BYTES, 20000])
def test_sge_of_channels_last_maps(width, shortcut, dtype, chunk, monkeypatch, products):
    monkeypatch.setattr('attnpool_backbones.ops.sge.CHUNK_BYTES', chunk)
    torch.manual_seed(0)
    args = [torch.randn(2, 32 * width, 9, 14) for _ in range(2 if shortcut else 1)]
    args = [x.to(dtype, memory_format=torch.channels_last).requires_grad_() for x in args]
    weight, bias = (torch.randn(1, 32, 1, 1, requires_grad=True) for _ in range(2))
    inputs = [args[0], weight, bias, *args[1:]]

    def outcome(function):
        y = function(*inputs[:3], 1e-5, *inputs[3:])
        assert y.is_contiguous(memory_format=torch.channels_last)
        return y, *torch.autograd.grad(y, inputs, torch.cos(torch.arange(y.numel()) * 1.0)
                                       .to(dtype).view_as(y))  # fmt: skip

    expected = outcome(sge.formula)
    few = width <= channel_groups.MOST_CHANNELS
    tolerance = 1e-4 if dtype == torch.float32 else 6e-2
    for y, z in zip(outcome(sge), expected, strict=True):
        bound = tolerance * max(1.0, float(z.detach().abs().max()))
        torch.testing.assert_close(y, z, rtol=0, atol=bound)
    if torch.backends.mkldnn.is_available():
        assert bool(products) == few
    with torch.no_grad():
        y = sge(args[0].clone(), weight, bias, 1e-5, *args[1:])
    torch.testing.assert_close(y, expected[0], rtol=0, atol=tolerance * 8)


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert 'mkldnn' not in str(function)
        return function(*args, **(kwargs or {}))


def test_counters_of_operations_see_common_ones():
    x = torch.randn(1, 64, 8, 8).to(memory_format=torch.channels_last)
    with Watching(), torch.no_grad():
        sge(x, torch.ones(1, 16, 1, 1), torch.ones(1, 16, 1, 1), 1e-5)
