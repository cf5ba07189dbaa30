"""StarReLU and what its scale and shift fold into."""

import torch
from torch.nn import functional as F

from attnpool_backbones.layers.star_relu import SquaredReLU, StarReLU
from attnpool_backbones.ops.star_relu import absorb_star_relu, squared_relu


def star_relu(scale, bias):
    act = StarReLU().double()
    torch.nn.init.constant_(act.scale, scale)
    torch.nn.init.constant_(act.bias, bias)
    return act


def test_formula():
    x = torch.tensor([-2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    expected = torch.tensor([-0.4, -0.4, -0.2, 6.8], dtype=torch.float64)
    torch.testing.assert_close(star_relu(0.8, -0.4)(x.clone()), expected)
    torch.testing.assert_close(StarReLU().double()(x.clone()), F.relu(x) ** 2)
    torch.testing.assert_close(SquaredReLU()(x.clone()), F.relu(x) ** 2)


def test_folds_into_the_next_linear_layer():
    act, x = star_relu(0.8, -0.4), torch.randn(6, 5, dtype=torch.float64)
    weight, bias = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    for b in (bias, None):
        absorbed = absorb_star_relu(weight, b, act.scale, act.bias)
        folded = F.linear(squared_relu(x.clone()), *absorbed)
        torch.testing.assert_close(folded, F.linear(act(x.clone()), weight, b))
