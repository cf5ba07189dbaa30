"""The norm over channels and positions."""

import pytest
import torch
from torch.nn import functional as F

from attnpool_backbones.layers.global_norm import GlobalNorm


@pytest.mark.parametrize('bias', [True, False])
def test_equals_a_layer_norm_of_the_whole_map(bias):
    norm = GlobalNorm(5, eps=1e-3, bias=bias).double()
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    expected = F.layer_norm(x, (5, 4, 3), eps=1e-3) * norm.weight.view(-1, 1, 1)
    if bias:
        expected = expected + norm.bias.view(-1, 1, 1)
    torch.testing.assert_close(norm(x), expected)
    scale = torch.rand(5, dtype=torch.float64)
    torch.testing.assert_close(norm(x, scale), expected * scale.view(-1, 1, 1))
    assert len(list(norm.parameters())) == 1 + bias
