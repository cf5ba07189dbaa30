"""Activations overwrite what no backward pass needs."""

import pytest
import torch
from torch import nn

from attnpool_backbones.layers.activations import ACTIVATIONS, Activated


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_the_input_is_overwritten(name):
    x = torch.randn(3, 40)
    assert ACTIVATIONS[name]()(x).data_ptr() == x.data_ptr()


@pytest.mark.parametrize('name', ACTIVATIONS)
@torch.no_grad()
def test_what_hooks_keep_is_not_overwritten(name):
    layers, kept = Activated(nn.Linear(4, 8), ACTIVATIONS[name](), nn.Linear(8, 4)), []
    layers[0].register_forward_hook(lambda layer, inputs, output: kept.append(output))
    x = torch.randn(3, 4)
    torch.testing.assert_close(layers(x), nn.Sequential(*layers)(x))
    torch.testing.assert_close(kept[0], layers[0](x))
