"""The linear layer over channels is a 1x1 convolution."""

import pytest
import torch
from torch.nn import functional as F

from attnpool_backbones.layers.linear2d import Linear2d


@pytest.mark.parametrize('bias', [True, False])
def test_equals_a_convolution(bias):
    layer = Linear2d(3, 5, bias=bias).double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    expected = F.conv2d(x, layer.weight[..., None, None], layer.bias)
    torch.testing.assert_close(layer(x), expected)
    doubled = layer(x, 2 * layer.weight, None if layer.bias is None else 2 * layer.bias)
    torch.testing.assert_close(doubled, 2 * expected)


def test_channels_last_is_kept_without_copies():
    x = torch.randn(2, 3, 4, 6).contiguous(memory_format=torch.channels_last)
    y = Linear2d(3, 5)(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
