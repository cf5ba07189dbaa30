"""The perceptron over channels equals its plain formula."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attnpool_backbones.layers.activations import ACTIVATIONS
from attnpool_backbones.layers.channel_mlp import ChannelMlp


def build(act, bias):
    mlp = ChannelMlp(4, 6, act, bias).double()
    for parameter in mlp.parameters():
        nn.init.normal_(parameter)
    return mlp


def plain(mlp, x, act, scale=1.0):
    y = F.conv2d(x, mlp.fc1.weight[..., None, None], mlp.fc1.bias)
    y = dict(
        gelu=F.gelu,
        relu=F.relu,
        silu=F.silu,
        star_relu=lambda y: mlp.act.scale * F.relu(y) ** 2 + mlp.act.bias,
    )[act](y)
    return scale * F.conv2d(y, mlp.fc2.weight[..., None, None], mlp.fc2.bias)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('act', ACTIVATIONS)
def test_equals_the_plain_formula(act, bias):
    mlp = build(act, bias)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    scale = torch.rand(4, dtype=torch.float64, requires_grad=True)
    y, expected = mlp(x, scale), plain(mlp, x, act, scale.view(-1, 1, 1))
    torch.testing.assert_close(y, expected)
    inputs, weight = (x, scale, *mlp.parameters()), torch.randn_like(x)
    torch.testing.assert_close(
        torch.autograd.grad((y * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
    )


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('act', ACTIVATIONS)
def test_folded_is_the_same(act, bias):
    mlp = build(act, bias)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    expected = mlp(x)
    mlp.fold()
    torch.testing.assert_close(mlp(x), expected)
    assert not any('act' in name for name, _ in mlp.named_parameters())


def test_unknown_activation_lists_the_known():
    with pytest.raises(ValueError, match="activation 'tanh' must be one of gelu, relu"):
        ChannelMlp(4, 6, 'tanh')
