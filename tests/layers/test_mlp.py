"""The MLP over the channels of a map."""

import pytest
import torch
from torch import nn

from attnpool_backbones.layers.mlp import MLP_ACTIVATIONS, ChannelMlp


def build(act, bias):
    mlp = ChannelMlp(4, 6, act, bias).double()
    for parameter in mlp.parameters():
        nn.init.normal_(parameter)
    return mlp


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('act', MLP_ACTIVATIONS)
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
