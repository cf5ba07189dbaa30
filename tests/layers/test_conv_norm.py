import copy

import pytest
import torch
from torch import nn

from attnpool_backbones.layers.conv_norm import conv_norm, fold_norms


def random_norm(channels):
    norm = nn.BatchNorm2d(channels)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm.double()


CASES = {
    '1x1': (nn.Conv2d(4, 6, 1, bias=False), True),
    '1x1 with bias and stride': (nn.Conv2d(4, 6, 1, stride=2), True),
    'depthwise': (nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), False),
    '3x3': (nn.Conv2d(4, 6, 3, stride=2, padding=1), False),
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def layers(request):
    conv, has_before = request.param
    conv = copy.deepcopy(conv).double()
    return conv, random_norm(conv.out_channels), random_norm(4) if has_before else None


def plain(x, conv, norm, before):
    return norm(conv(x if before is None else before(x)))


@pytest.mark.parametrize('norm_trains', [False, True])
def test_equals_the_layers_one_by_one(layers, norm_trains):
    conv, norm, before = layers
    norm.train(norm_trains)
    if before is not None:
        before.eval()
    modules = nn.ModuleList(m for m in layers if m is not None)
    copies = copy.deepcopy(modules)
    x = torch.randn(2, 4, 7, 6, dtype=torch.double, requires_grad=True)
    x_copy = x.detach().clone().requires_grad_()
    computed = conv_norm(x, conv, norm, before)
    expected = plain(x_copy, *copies, *([] if before is not None else [None]))
    torch.testing.assert_close(computed, expected)
    for y in (computed, expected):
        y.square().sum().backward()
    torch.testing.assert_close(x.grad, x_copy.grad)
    for (name, one), (_, other) in zip(
        modules.named_parameters(), copies.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    torch.testing.assert_close(dict(modules.named_buffers()), dict(copies.named_buffers()))


@torch.no_grad()
def test_fold(layers):
    conv, norm, before = layers
    for m in (norm, before):
        if m is not None:
            m.eval()
    x = torch.randn(2, 4, 7, 6, dtype=torch.double)
    expected = plain(x, conv, norm, before)
    fold_norms(conv, norm, before)
    torch.testing.assert_close(conv(x), expected)


def test_no_norm_at_all():
    conv = nn.Conv2d(4, 6, 1)
    x = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(conv_norm(x, conv, nn.Identity()), conv(x))
