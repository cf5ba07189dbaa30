"""The fast weight gradient of a depthwise convolution equals torch's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnpool_backbones.layers.depthwise_conv import DepthwiseConv2d


def gradients(layer, x, weight):
    y = layer(x)
    return y, torch.autograd.grad((y * weight).sum(), (x, *layer.parameters()))


@settings(max_examples=30, deadline=None)
@given(
    kernel_size=st.sampled_from([3, 5, 7, 9]),
    batch=st.integers(1, 3),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels_last=st.booleans(),
    bias=st.booleans(),
)
def test_equals_torch(kernel_size, batch, height, width, channels_last, bias):
    fast = DepthwiseConv2d(3, kernel_size, bias=bias).double()
    plain = nn.Conv2d(3, 3, kernel_size, padding=kernel_size // 2, groups=3, bias=bias).double()
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(batch, 3, height, width, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn_like(x)
    x.requires_grad_()
    torch.testing.assert_close(gradients(fast, x, weight), gradients(plain, x, weight))


def test_frozen_weight_and_input_without_gradient():
    layer = DepthwiseConv2d(2, 7).requires_grad_(False)
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    layer = DepthwiseConv2d(2, 7)
    layer(x.detach()).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_autocast_gives_gradients_of_the_parameters_type():
    layer = DepthwiseConv2d(4, 7, bias=False)
    x = torch.randn(1, 4, 16, 16, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert layer.weight.grad.dtype == x.grad.dtype == torch.float32
    error = (layer.weight.grad - expected).norm() / expected.norm()
    assert error < 0.02


@pytest.mark.parametrize('kernel_size', [3, 7])
def test_size_is_kept(kernel_size):
    assert DepthwiseConv2d(2, kernel_size)(torch.randn(1, 2, 5, 6)).shape == (1, 2, 5, 6)
