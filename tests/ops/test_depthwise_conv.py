"""What the operator contract does not say of depthwise convolutions."""

import pytest
import torch

from attnpool_backbones.layers.depthwise_conv import DepthwiseConv2d


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
