"""What the operator contract does not say of depthwise convolutions."""

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

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


@pytest.mark.parametrize('size', [(1, 1), (1, 4), (8, 1)])
def test_maps_as_thin_as_a_position_train(size):
    """E.g. the last one of images of 32 pixels."""
    layer = DepthwiseConv2d(4, 7)
    x = torch.randn(2, 4, *size).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(2, *size, 4).permute(0, 3, 1, 2)
    computed, expected = (
        torch.autograd.grad((f(x) * weight).sum(), layer.weight)
        for f in (layer, lambda x: layer._conv_forward(x, layer.weight, layer.bias))
    )
    torch.testing.assert_close(computed, expected)


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


def test_padding_mode_is_kept():
    layer, x = DepthwiseConv2d(2, 5), torch.randn(1, 2, 6, 7)
    layer.padding_mode = 'circular'
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode='circular')
    expected = torch.nn.functional.conv2d(padded, layer.weight, layer.bias, groups=2)
    torch.testing.assert_close(layer(x), expected)


def test_compiled_graphs_hold_the_weight_gradient_as_one_operator():
    """The compiler lays out its windows so that every product copies them: 1.1 s, not 0.5."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    layer, x = DepthwiseConv2d(4, 7), torch.randn(2, 4, 9, 12, requires_grad=True)
    weight = torch.randn(2, 4, 9, 12)
    compiled = torch.compile(layer, backend=aot_autograd(fw_compiler=keep), fullgraph=True)
    results = [
        torch.autograd.grad((f(x) * weight).sum(), [x, *layer.parameters()])
        for f in (compiled, layer)
    ]
    torch.testing.assert_close(*results)
    forward, backward = (graph.code for graph in graphs)
    assert 'depthwise_weight_gradient' in backward and 'bmm' not in forward + backward
