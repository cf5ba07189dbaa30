"""Token mixers; the operators that they are made of keep the operator contract."""

import pytest
import torch

from attnpool_backbones.layers.token_mixers import (
    CHANNELWISE_MIXERS,
    TOKEN_MIXERS,
    Pooling,
    SelfAttention2d,
    SpatialFC,
    build_token_mixer,
    last_layer,
    resize_spatial_matrix,
)
from tests.golden import load_golden


def random_map(*shape, channels_last=True):
    x = torch.randn(*shape, dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


@pytest.mark.parametrize('size', [3, 5, 7, 9])
def test_pooling_equals_the_official_unit(size):
    fixture = load_golden('poolformer_pooling_unit')
    y = Pooling(size)(torch.from_numpy(fixture['input']))
    torch.testing.assert_close(y, torch.from_numpy(fixture[f'pool{size}']), rtol=0, atol=2e-6)


def test_pooling_of_a_constant_map_is_zero():
    y = Pooling(3)(torch.full((1, 2, 5, 4), 3.0))
    torch.testing.assert_close(y, torch.zeros_like(y), rtol=0, atol=1e-6)


@pytest.mark.parametrize('size', [0, 2])
def test_pooling_needs_an_odd_window(size):
    with pytest.raises(ValueError, match=f'pool_size={size} must be odd'):
        Pooling(size)


def test_attention_has_at_least_one_head():
    assert SelfAttention2d(16).qkv.weight.shape == (96, 16)
    assert SelfAttention2d(96, proj_bias=False).proj.bias is None


def test_spatial_fc_multiplies_positions():
    mixer = SpatialFC((3, 2)).double()
    x = random_map(2, 5, 3, 2)
    expected = torch.einsum('mn,bcn->bcm', mixer.weight, x.flatten(2)).view_as(x)
    torch.testing.assert_close(mixer(x), expected)


@pytest.mark.parametrize('size', [(3, 2), (6, 4), (5, 7), (1, 1), (2, 9)])
def test_spatial_fc_of_another_size_is_the_resized_matrix(size):
    mixer = SpatialFC((3, 2)).double()
    matrix = resize_spatial_matrix(mixer.weight.detach(), (3, 2), size)
    x = random_map(2, 5, *size)
    expected = torch.einsum('mn,bcn->bcm', matrix, x.flatten(2)).view_as(x)
    torch.testing.assert_close(mixer(x), expected)


def test_random_matrix_is_a_frozen_distribution():
    mixer = SpatialFC((4, 3), random=True)
    assert not mixer.weight.requires_grad
    torch.testing.assert_close(mixer.weight.sum(dim=1), torch.ones(12))
    # Interpolation keeps rows that sum to 1: a constant map stays constant at any size.
    torch.testing.assert_close(mixer(torch.ones(1, 2, 7, 6)), torch.ones(1, 2, 7, 6))


@pytest.mark.parametrize('name', TOKEN_MIXERS)
def test_gradcheck(name):
    mixer = build_token_mixer(name, 4, grid=(2, 3)).double()
    x = random_map(1, 4, 4, 3).requires_grad_()
    inputs = (x, *(p for p in mixer.parameters() if p.requires_grad))
    assert torch.autograd.gradcheck(lambda x, *_: mixer(x), inputs, fast_mode=True)


@pytest.mark.parametrize('name', TOKEN_MIXERS)
def test_last_layer_or_scale_passes_through(name):
    mixer = build_token_mixer(name, 4, grid=(2, 3)).double()
    x, scale = random_map(2, 4, 4, 3), torch.rand(4, 1, 1, dtype=torch.float64)
    y = mixer(x)
    layer = last_layer(mixer)
    if isinstance(mixer, CHANNELWISE_MIXERS):
        assert layer is None
        torch.testing.assert_close(mixer(x * scale), y * scale)
        return
    with torch.no_grad():
        layer.weight.mul_(scale.view(-1, *(1,) * (layer.weight.dim() - 1)))
        if layer.bias is not None:
            layer.bias.mul_(scale.flatten())
    torch.testing.assert_close(mixer(x), y * scale)


def test_unknown_mixer_lists_the_known():
    with pytest.raises(ValueError, match="token mixer 'fft' must be one of pool, identity"):
        build_token_mixer('fft', 4, grid=(2, 3))
