"""Norms and scales fold into plain layers, and into no others."""

import copy

import pytest
import torch
from torch import nn

from attnpool_backbones.layers.folding import fold_norm_after, fold_norm_before, fold_scale_after


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


@torch.no_grad()
def test_norms_around_a_convolution(layers):
    conv, norm, before = layers
    for m in (norm, before):
        if m is not None:
            m.eval()
    x = torch.randn(2, 4, 7, 6, dtype=torch.double)
    expected = norm(conv(x if before is None else before(x)))
    if before is not None:
        assert isinstance(fold_norm_before(before, conv), nn.Identity)
    assert isinstance(fold_norm_after(conv, norm), nn.Identity)
    torch.testing.assert_close(conv(x), expected)


class Adapted(nn.Linear):
    """A layer that adds something to what its weights say."""

    def forward(self, x):
        return super().forward(x) + x.sum(-1, keepdim=True)


@pytest.mark.parametrize('build', [nn.Linear, Adapted])
@torch.no_grad()
def test_scale(build):
    layer, scale, x = build(3, 4), torch.rand(4), torch.randn(2, 3)
    expected = scale * layer(x)
    left = fold_scale_after(layer, scale)
    assert (left is None) == (build is nn.Linear)
    torch.testing.assert_close(layer(x) if left is None else left * layer(x), expected)


def test_what_cannot_be_folded_stays():
    norm, layer = nn.BatchNorm2d(3).eval(), Adapted(3, 4)
    assert fold_norm_before(norm, layer) is norm
    conv, live = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3).train()
    assert fold_norm_after(conv, live) is fold_norm_before(live, conv) is live


def test_nothing_is_folded_into_identities():
    norm, layer, scale = nn.BatchNorm2d(3).eval(), nn.Identity(), torch.rand(3)
    assert fold_norm_before(norm, layer) is fold_norm_after(layer, norm) is norm
    assert fold_scale_after(layer, scale) is scale
