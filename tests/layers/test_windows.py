"""Attention within windows: exact where a window holds the map, alone in it where it does not."""

import pytest
import torch

from attnpool_backbones.backbones import CoAtNet, DeepViT, MetaFormer
from attnpool_backbones.layers.grid_attention import GridAttention
from attnpool_backbones.layers.re_attention import HeadMixing, ReAttention
from attnpool_backbones.layers.token_mixers import SelfAttention2d
from attnpool_backbones.layers.windows import in_windows, window_of_block

BACKBONES = {
    'CoAtNet': lambda **options: CoAtNet(
        dict(base='nano', depths=(1, 1, 4, 3)), pretrain_size=64, **options
    ),
    'MetaFormer': lambda **options: MetaFormer(
        dict(base='caformer_nano', depths=(1, 1, 4, 3)), **options
    ),
}
each_backbone = pytest.mark.parametrize('build', BACKBONES.values(), ids=BACKBONES)


@pytest.mark.parametrize('size', [(4, 6), (5, 7), (2, 9), (1, 1), (3, 3)])
def test_each_window_is_seen_alone(size):
    x = torch.randn(2, *size, 3, 2)
    y = in_windows(x, 3, lambda w: w.flatten(3) - w.flatten(3).mean((1, 2), keepdim=True))
    assert y.shape == (2, *size, 6)
    for top in range(0, size[0], 3):
        for left in range(0, size[1], 3):
            part = x.flatten(3)[:, top : top + 3, left : left + 3]
            expected = part - part.mean((1, 2), keepdim=True)
            torch.testing.assert_close(y[:, top : top + 3, left : left + 3], expected)


@torch.no_grad()
@pytest.mark.parametrize('size', [(6, 6), (7, 5), (2, 3), (3, 8)])
def test_attention_mixer(size):
    torch.manual_seed(0)
    windowed, whole = SelfAttention2d(64, window=3), SelfAttention2d(64)
    whole.load_state_dict(windowed.state_dict())
    x = torch.randn(2, 64, *size)
    y = windowed(x)
    for top in range(0, size[0], 3):
        for left in range(0, size[1], 3):
            part = (..., slice(top, top + 3), slice(left, left + 3))
            torch.testing.assert_close(y[part], whole(x[part]))


def attentions(model):
    kinds = GridAttention, SelfAttention2d
    return [[m.window for m in stage.modules() if isinstance(m, kinds)] for stage in model.stages]


@each_backbone
def test_which_blocks_keep_the_whole_map(build):
    windows = (None, None, 4, 3)
    none = [[], [], [None] * 4, [None] * 3]
    assert attentions(build()) == none
    assert attentions(build(windows=windows)) == [[], [], [4] * 4, [3] * 3]
    turns = [[], [], [4, None, 4, None], [3, None, 3]]
    assert attentions(build(windows=windows, global_every=2)) == turns
    assert attentions(build(windows=windows, global_every=1)) == none


@torch.no_grad()
@each_backbone
def test_exact_where_a_window_holds_the_map(build):
    torch.manual_seed(0)
    whole = build().eval()
    x = torch.randn(2, 3, 64, 64)
    windowed = build(windows=(None, None, 4, 2)).eval()
    off = build(windows=(None, None, 1, 1), global_every=1).eval()
    for model in (windowed, off):
        model.load_state_dict(whole.state_dict())
    for a, b, c in zip(whole(x), windowed(x), off(x), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
        assert torch.equal(c, a)
    x = torch.randn(2, 3, 64, 96)
    assert not torch.allclose(windowed(x)[2], whole(x)[2], atol=1e-3)


@each_backbone
@pytest.mark.parametrize(
    'options, message',
    [
        (dict(windows=(None, None, 4)), 'one entry for each of 4 stages'),
        (dict(windows=(7, None, 7, 7)), r'in those with attention \(2, 3\)'),
        (dict(windows=(None, None, 0, 7)), 'from 1 on'),
        (dict(windows=(None, None, 4, 7), global_every=-1), 'global_every=-1 of'),
        (dict(global_every=2), 'global_every=2 of .* with windows'),
    ],
)
def test_wrong_options(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_turns():
    assert [window_of_block(7, b, 3) for b in range(7)] == [7, 7, None, 7, 7, None, 7]
    assert [window_of_block(7, b, 0) for b in range(3)] == [7] * 3


@torch.no_grad()
@pytest.mark.parametrize('norm', [None, 'LN', 'BN'])
@pytest.mark.parametrize('grid', [(3, 6), (4, 5), (2, 2)])
def test_class_token_takes_part_in_each_window(norm, grid):
    torch.manual_seed(0)
    windowed = ReAttention(16, 4, HeadMixing(4, 10, norm), window=3).eval()
    whole = ReAttention(16, 4, HeadMixing(4, 10, norm)).eval()
    whole.load_state_dict(windowed.state_dict())
    tokens = torch.randn(2, 1 + grid[0] * grid[1], 16)
    y = windowed(tokens, grid=grid)
    of_class, patches, found = tokens[:, :1], tokens[:, 1:].unflatten(1, grid), y[:, 1:]
    found, total = found.unflatten(1, grid), 0
    for top in range(0, grid[0], 3):
        for left in range(0, grid[1], 3):
            part = (slice(None), slice(top, top + 3), slice(left, left + 3))
            inner = patches[part].flatten(1, 2)
            expected = whole(torch.cat([of_class, inner], 1))
            torch.testing.assert_close(found[part].flatten(1, 2), expected[:, 1:])
            total = total + expected[:, 0] * inner.shape[1]
    torch.testing.assert_close(y[:, 0], total / (grid[0] * grid[1]))


@torch.no_grad()
@pytest.mark.parametrize('arch', ['nano', 'nano_vit_12b'])
def test_deepvit(arch):
    torch.manual_seed(0)
    whole, windowed = DeepViT(arch).eval(), DeepViT(arch, window=8).eval()
    turns = DeepViT(arch, window=8, global_every=3).eval()
    off = DeepViT(arch, window=1, global_every=1).eval()
    for model in (windowed, turns, off):
        model.load_state_dict(whole.state_dict())
    sides = [block.attn.window for block in turns.blocks]
    assert sides == [None if i % 3 == 2 else 8 for i in range(whole.depth)]
    x = torch.randn(2, 3, 64, 60)
    for a, b, c in zip(whole(x), windowed(x), off(x), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
        assert torch.equal(c, a)
    x = torch.randn(2, 3, 64, 96)
    assert not torch.allclose(windowed(x)[-1], whole(x)[-1], atol=1e-3)
    with pytest.raises(ValueError, match='without windows only, not with window=8'):
        windowed.forward_lazy_maps(x, 1)


@pytest.mark.parametrize('options', [dict(window=0), dict(global_every=2)])
def test_wrong_options_of_deepvit(options):
    with pytest.raises(ValueError, match='of DeepViT must'):
        DeepViT('nano', **options)
