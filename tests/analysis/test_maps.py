import numpy as np
import pytest
import torch

from attnpool_backbones.analysis.collapse import attentions_of
from attnpool_backbones.analysis.maps import attention_of
from attnpool_backbones.command_line import UserError
from attnpool_backbones.layers.grid_attention import GridAttention
from attnpool_backbones.layers.re_attention import HeadMixing, ReAttention
from attnpool_backbones.layers.relative_bias import RelativeBiasTable
from attnpool_backbones.layers.token_mixers import SelfAttention2d
from tests.analysis.subjects import golden_subject

MAP, TOKENS = (2, 16, 5, 3), (2, 7, 16)
LAYERS = {
    'plain': (lambda: SelfAttention2d(64), (2, 64, 5, 3)),
    'grid': (lambda: GridAttention(16, 64, 24), MAP),
    'relative': (lambda: GridAttention(16, 64, 24, bias=RelativeBiasTable(2, (5, 3))), MAP),
    'resized': (lambda: GridAttention(16, 64, 24, bias=RelativeBiasTable(2, (4, 4))), MAP),
    'after': (
        lambda: GridAttention(16, 64, 24, bias=RelativeBiasTable(2, (4, 4)), bias_place='after'),
        MAP,
    ),
    'tokens': (lambda: ReAttention(16, 2), TOKENS),
    'mixed': (lambda: ReAttention(16, 2, HeadMixing(2, 5)), TOKENS),
    'mixed with layer norm': (lambda: ReAttention(16, 2, HeadMixing(2, 7, 'LN')), TOKENS),
}


@pytest.mark.parametrize('name', LAYERS)
@torch.no_grad()
def test_maps_times_values_are_what_the_layer_computes(name):
    build, shape = LAYERS[name]
    layer, x = build().eval(), torch.randn(shape)
    for parameter in layer.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    attention = attention_of(layer, x)
    output = layer.proj((attention.mixed() @ attention.v).transpose(1, 2).flatten(2))
    expected = layer(x)
    if expected.dim() == 4:
        expected = expected.flatten(2).mT
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
    rows = torch.cat([attention.mixed(slice(0, 4)), attention.mixed(slice(4, None))], dim=2)
    torch.testing.assert_close(rows, attention.mixed())


@torch.no_grad()
def test_window_of_a_query():
    layer = GridAttention(16, 64, 24, bias=RelativeBiasTable(2, (4, 4)), window=4).eval()
    torch.nn.init.normal_(layer.bias.relative_position_bias_table)
    x = torch.randn(1, 16, 9, 7)
    expected = layer(x)
    for position, rows, columns in (
        ((5, 2), slice(4, 8), slice(0, 4)),
        ((8, 6), slice(8, 9), slice(4, 7)),
    ):
        attention = attention_of(layer, x, position)
        output = layer.proj((attention.mixed() @ attention.v).transpose(1, 2).flatten(2))
        window = expected[:, :, rows, columns]
        assert attention.grid == tuple(window.shape[-2:])
        torch.testing.assert_close(output, window.flatten(2).mT, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match='name the query'):
        attention_of(layer, x)


WINDOWED = {
    'plain': lambda: SelfAttention2d(64, window=4),
    'tokens': lambda: ReAttention(64, 4, window=4),
    'mixed': lambda: ReAttention(64, 4, HeadMixing(4, 5), window=4),
    'mixed with layer norm': lambda: ReAttention(64, 4, HeadMixing(4, 7, 'LN'), window=4),
}


@pytest.mark.parametrize('name', WINDOWED)
@pytest.mark.parametrize(
    'position, rows, columns',
    [((5, 2), slice(4, 8), slice(0, 4)), ((8, 6), slice(8, 9), slice(4, 7))],
)
@torch.no_grad()
def test_window_of_a_query_without_bias(name, position, rows, columns):
    layer = WINDOWED[name]().eval()
    for parameter in layer.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    if name == 'plain':
        x = torch.randn(2, 64, 9, 7)
        attention, expected = attention_of(layer, x, position), layer(x).permute(0, 2, 3, 1)
    else:
        x = torch.randn(2, 1 + 9 * 7, 64)
        attention = attention_of(layer, x, position, (9, 7))
        expected = layer(x, grid=(9, 7))[:, 1:].unflatten(1, (9, 7))
    window = expected[:, rows, columns].flatten(1, 2)
    output = layer.proj((attention.mixed() @ attention.v).transpose(1, 2).flatten(2))
    leading = 0 if name == 'plain' else 1
    assert attention.tokens == leading + window.shape[1]
    torch.testing.assert_close(output[:, leading:], window, atol=1e-5, rtol=1e-4)


def test_windows_with_common_statistics_have_no_maps_of_their_own():
    layer = ReAttention(16, 2, HeadMixing(2, 5, stats_tokens='live'), window=2)
    with pytest.raises(UserError, match="stats_tokens='live'"):
        attention_of(layer, torch.randn(1, 17, 16), (0, 0), (4, 4))


def test_static_part_is_the_table_by_offset():
    layer = GridAttention(16, 64, 24, bias=RelativeBiasTable(2, (3, 4))).eval()
    torch.nn.init.normal_(layer.bias.relative_position_bias_table)
    static = attention_of(layer, torch.randn(1, 16, 3, 4)).static()
    table = layer.bias(3, 4)
    for n in range(12):
        for m in range(12):
            rows, columns = n // 4 - m // 4, n % 4 - m % 4
            assert torch.equal(static[:, n, m], table[:, rows + 2, columns + 3])


@pytest.mark.parametrize('file', ['deepvit_small_plain', 'deepvit_small_reattn_cal'])
def test_maps_of_the_official_code(file, tmp_path):
    subject, fixture, inputs = golden_subject(file, tmp_path)
    (group,) = attentions_of(subject.backbone, inputs)
    assert [name for name, _ in group] == [f'blocks.{p}.attn' for p in range(4)]
    for p, (_, attention) in enumerate(group):
        found, official = attention.softmax().numpy(), fixture[f'attn_softmax_{p}']
        np.testing.assert_allclose(found, official, atol=1e-5)
        found, official = attention.mixed().numpy(), fixture[f'attn_{p}']
        np.testing.assert_allclose(found, official, atol=5e-4)
        assert attention.mixes == (file != 'deepvit_small_plain')
