"""Activations that overwrite spare tensors."""

import pytest
import torch
from torch import nn

from attnpool_backbones.layers.activations import ACTIVATIONS

REFERENCES = {'gelu': nn.GELU, 'relu': nn.ReLU, 'silu': nn.SiLU}


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_spare_tensors_are_overwritten(name):
    x = torch.randn(3, 40)
    expected = REFERENCES[name]()(x)
    y = ACTIVATIONS[name]()(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    assert y.data_ptr() == x.data_ptr()


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_what_the_backward_pass_needs_is_not(name):
    x = torch.randn(3, 40, dtype=torch.float64, requires_grad=True)
    before = x.detach().clone()
    y = ACTIVATIONS[name]()(x)
    assert torch.equal(x, before) and not torch.equal(y, before)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    (expected,) = torch.autograd.grad(REFERENCES[name]()(x).square().sum(), x)
    torch.testing.assert_close(grad, expected)
