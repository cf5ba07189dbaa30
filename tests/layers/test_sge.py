"""What the operator contract does not say of SGE."""

import pytest
import torch

from attnpool_backbones.layers.sge import SGE
from attnpool_backbones.ops import sge as module
from attnpool_backbones.ops.sge import sge


def drawn(channels, groups, dtype=torch.float64):
    layer = SGE(channels, groups=groups).to(dtype)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    return layer


def test_gate_is_what_the_layer_multiplies_with():
    layer, x = drawn(12, 3), torch.randn(2, 12, 5, 4, dtype=torch.float64)
    gate = layer.gate(x)
    assert gate.shape == (2, 3, 5, 4)
    torch.testing.assert_close(layer(x), x * gate.repeat_interleave(4, dim=1))


def test_gradients_of_the_gate_without_deviation():
    layer, x = drawn(4, 2), torch.ones(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    layer.gate(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('value', [0.0, 1.0, -3.0])
def test_constant_map_and_single_position(value):
    layer = drawn(64, 8, torch.float32)
    expected = value * layer.bias.sigmoid().repeat_interleave(8, dim=1)
    for size in [(1, 1), (4, 4)]:
        x = torch.full((2, 64, *size), value, requires_grad=True)
        y = layer(x)
        torch.testing.assert_close(y, expected.expand_as(y))
        y.sum().backward()
        assert x.grad.isfinite().all()


def test_single_position_has_the_gradient_of_a_constant_gate():
    layer, x = drawn(8, 2, torch.float32), torch.randn(3, 8, 1, 1, requires_grad=True)
    (dx,) = torch.autograd.grad(layer(x).sum(), x)
    expected = layer.bias.sigmoid().repeat_interleave(4, dim=1).expand_as(x)
    torch.testing.assert_close(dx, expected)


def test_starts_as_a_constant_scale():
    x = torch.randn(2, 128, 5, 6)
    torch.testing.assert_close(SGE(128)(x), x * torch.tensor(1.0).sigmoid())


def test_initial_scale_and_shift():
    layer, x = SGE(128, groups=32, scale_init=0.5, shift_init=-1), torch.randn(2, 128, 5, 6)
    grouped = x.unflatten(1, (32, 4))
    a = (grouped * grouped.mean((3, 4), keepdim=True)).sum(2)
    a = (a - a.mean((2, 3), keepdim=True)) / (a.std((2, 3), keepdim=True) + 1e-5)
    expected = grouped * (0.5 * a - 1).sigmoid()[:, :, None]
    torch.testing.assert_close(layer(x), expected.flatten(1, 2), rtol=1e-4, atol=1e-5)


def test_without_normalisation_a_larger_map_has_a_steeper_gate():
    layer, x = (
        SGE(16, groups=4, scale_init=1, shift_init=0, normalize=False),
        torch.rand(1, 16, 3, 3),
    )
    grouped = x.unflatten(1, (4, 4))
    products = (grouped * grouped.mean((3, 4), keepdim=True)).sum(2)
    torch.testing.assert_close(layer.gate(x).logit(), products, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.gate(2 * x).logit(), 4 * products, rtol=1e-3, atol=1e-4)


def test_statistics_are_float32_under_autocast_and_half():
    layer = drawn(16, 4, torch.float32)
    # Exact in bfloat16, but with dot products that are not.
    x = (torch.randn(2, 16, 8, 8) * 8).bfloat16()
    expected = x.float() * layer.gate(x.float()).repeat_interleave(4, dim=1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    # The gate and the product are rounded, each by at most 2**-8.
    torch.testing.assert_close(y.float(), expected, rtol=2**-7, atol=0)
    assert layer.bfloat16().gate(x).dtype == torch.float32


def test_large_values_do_not_overflow_in_half():
    x = torch.full((1, 16, 4, 4), 200.0, dtype=torch.float16)
    x[..., 0, 0] = -200
    y = drawn(16, 1, torch.float32).half()(x)  # dot products of up to 6e5
    assert y.isfinite().all()


def test_gradients_under_autocast_are_close_to_those_in_float32():
    layer = drawn(16, 4, torch.float32)
    x = torch.randn(2, 16, 8, 8).bfloat16()
    dy = torch.randn(2, 16, 8, 8).bfloat16()
    inputs = [x.clone().requires_grad_(), layer.weight, layer.bias]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        computed = torch.autograd.grad(layer(inputs[0]), inputs, dy)
    inputs = [x.float().requires_grad_(), layer.weight, layer.bias]
    expected = torch.autograd.grad(layer(inputs[0]), inputs, dy.float())
    assert computed[0].dtype == torch.bfloat16
    for a, b in zip(computed, expected, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=2e-2, atol=2e-2)


def test_empty_batch():
    x = torch.zeros(0, 64, 4, 4, requires_grad=True)
    layer = SGE(64)
    y = layer(x)
    assert y.shape == x.shape
    y.sum().backward()
    assert not layer.weight.grad.any()


@pytest.mark.parametrize('groups', [0, 3, 128])
def test_groups_must_divide_the_channels(groups):
    with pytest.raises(ValueError, match=f'divides its channels.*in_channels=64, groups={groups}'):
        SGE(64, groups=groups)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('chunk_bytes', [1, 700])
@pytest.mark.parametrize('has_shortcut', [False, True])
def test_chunks(layout, chunk_bytes, has_shortcut, monkeypatch):
    monkeypatch.setattr(module, 'CHUNK_BYTES', chunk_bytes)
    maps = [torch.randn(3, 12, 5, 4, dtype=torch.float64).to(memory_format=layout).requires_grad_()
            for _ in range(1 + has_shortcut)]  # fmt: skip
    layer = drawn(12, 4)
    inputs = (maps[0], layer.weight, layer.bias, layer.eps, *maps[1:])
    y, expected = sge(*inputs), sge.formula(*inputs)
    assert y.is_contiguous(memory_format=layout)
    torch.testing.assert_close(y, expected)
    wanted, dy = [*maps, layer.weight, layer.bias], torch.randn_like(y)
    torch.testing.assert_close(
        torch.autograd.grad(y, wanted, dy), torch.autograd.grad(expected, wanted, dy)
    )


def test_shortcut_of_another_layout():
    layer, x = drawn(8, 2), torch.randn(2, 8, 5, 6, dtype=torch.float64)
    shortcut = torch.randn_like(x).to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x, shortcut), torch.relu(shortcut + layer(x)))
