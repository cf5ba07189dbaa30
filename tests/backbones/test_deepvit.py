import pytest
import torch

from attnpool_backbones import ops
from attnpool_backbones.backbones import DeepViT
from attnpool_backbones.checkpoints import load_pretrained
from attnpool_backbones.layers.re_attention import HeadMixing
from tests.backbones.families.deepvit import S_LIKE, SMALL
from tests.golden import load_golden, official_state_dict

IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def mixing_blocks(model):
    return [i for i, block in enumerate(model.blocks) if block.attn.mixing is not None]


@pytest.mark.parametrize(
    ('arch', 'blocks', 'scale'),
    [('16b', range(16), 1.0), ('s', range(11, 16), 33**-0.5), ('l', range(20, 32), 1.0),
     ('vit_12b', (), None)],
)  # fmt: skip
def test_reattention_lies_where_published(arch, blocks, scale):
    with torch.device('meta'):
        model = DeepViT(arch)
    assert mixing_blocks(model) == list(blocks)
    assert all(model.blocks[i].attn.mixing.scale == pytest.approx(scale) for i in blocks)


def test_default_taps_and_drop_path():
    with torch.device('meta'):
        model = DeepViT('s', drop_path_rate=0.2)
    assert model.out_indices == (4, 7, 10, 15)
    rates = [block.drop_path.drop_prob for block in model.blocks]
    assert rates == pytest.approx([0.2 * i / 15 for i in range(16)])


def test_padded_borders_are_zeros():
    model = DeepViT(SMALL).eval()
    x = IMAGE[:, :, :50, :39]
    padded = torch.nn.functional.pad(x, (0, 9, 0, 14))
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(padded))


@pytest.mark.parametrize('arch', [SMALL, S_LIKE], ids=['conv16', 'cnn'])
def test_embedding_of_an_odd_size_is_that_of_the_convolutions_alone(arch):
    """One pixel short of a multiple the official embedding runs, and padding changes nothing."""
    model = DeepViT(arch).eval()
    stem = model.stem
    x = IMAGE[:, :, :63, :63] if stem.cnn else IMAGE
    with torch.no_grad():
        y = x
        if stem.cnn:
            y = stem.bn1(stem.conv1(y)).relu()
            y = stem.bn2(stem.conv2(y)).relu()
        torch.testing.assert_close(stem.embed(x), stem.proj(y), rtol=1e-4, atol=1e-5)


def test_out_norms_from_an_official_file(tmp_path):
    fixture = load_golden('deepvit_small_reattn')
    torch.save(official_state_dict(fixture), tmp_path / 'official.pth')
    maps = {}
    for out_norm in (None, 'final', 'all'):
        model = DeepViT(SMALL, out_indices=(1, 3), out_norm=out_norm).eval()
        load_pretrained(model, tmp_path / 'official.pth')
        with torch.no_grad():
            maps[out_norm] = model(torch.from_numpy(fixture['input']))
    raw, final, both = maps.values()
    torch.testing.assert_close(final[0], raw[0])
    torch.testing.assert_close(final[1], torch.from_numpy(fixture['trunk']), rtol=0, atol=1e-5)
    torch.testing.assert_close(both[1], final[1])
    for y in (*both, final[1]):
        assert y.shape[1] == 96
    torch.testing.assert_close(both[0].mean(1), torch.zeros(2, 4, 4), rtol=0, atol=1e-5)


@pytest.mark.parametrize('container', ['state_dict', 'state_dict_ema'])
def test_training_checkpoints(container, tmp_path):
    fixture = load_golden('deepvit_small_s_like_cal')
    weights = {f'module.{n}': v for n, v in official_state_dict(fixture).items()}
    torch.save({container: weights, 'epoch': 3, 'arch': 'x'}, tmp_path / 'training.pth.tar')
    model = DeepViT(S_LIKE, out_norm='final').eval()
    report = load_pretrained(model, tmp_path / 'training.pth.tar')
    assert not report.missing and not report.unexpected
    with torch.no_grad():
        trunk = model(torch.from_numpy(fixture['input']))[-1]
    torch.testing.assert_close(trunk, torch.from_numpy(fixture['trunk']), rtol=0, atol=5e-4)


def test_position_table_of_another_size(tmp_path):
    fixture = load_golden('deepvit_small_plain')
    torch.save(official_state_dict(fixture), tmp_path / 'official.pth')
    arch = dict(SMALL, reattention=(), image_size=96)
    model = DeepViT(arch)
    report = load_pretrained(model, tmp_path / 'official.pth')
    assert report.resized == ['stem.pos_embed']
    assert model.stem.pos_embed.shape == (1, 37, 96)
    official = official_state_dict(fixture)['pos_embed']
    torch.testing.assert_close(model.stem.pos_embed[:, 0], official[:, 0])
    expected = torch.nn.functional.interpolate(
        official[:, 1:].mT.unflatten(2, (4, 4)), (6, 6), mode='bicubic'
    )
    torch.testing.assert_close(model.stem.pos_embed[:, 1:].mT.unflatten(2, (6, 6)), expected)


def copied(tokens, times):
    """Repeats each patch token ``times`` x ``times`` in the grid; the class token stays one."""
    edge = round((tokens.shape[1] - 1) ** 0.5)
    grid = tokens[:, 1:].unflatten(1, (edge, edge))
    grid = grid.repeat_interleave(times, 1).repeat_interleave(times, 2)
    return torch.cat([tokens[:, :1], grid.flatten(1, 2)], 1)


@pytest.mark.parametrize(
    ('stats_tokens', 'low', 'high'),
    [('rescale', 0, 0.15), ('live', 1, 10), ('fixed', 50, 1000)],
)
def test_statistics_at_another_number_of_tokens(stats_tokens, low, high, tmp_path):
    """The figures in HeadMixing's docstring, at 257 tokens instead of 17."""
    fixture = load_golden('deepvit_small_s_like_cal')
    torch.save(official_state_dict(fixture), tmp_path / 'official.pth')

    def run(mode, times):
        model = DeepViT(S_LIKE, stats_tokens=mode).eval()
        load_pretrained(model, tmp_path / 'official.pth')
        with torch.no_grad():
            tokens = copied(model.stem(torch.from_numpy(fixture['input'])), times)
            for block in model.blocks:
                tokens = block(tokens)
        return model.patch_map(tokens, (4 * times, 4 * times))[..., ::times, ::times]

    expected = run('fixed', 1)
    error = (run(stats_tokens, 4) - expected).norm() / expected.norm()
    assert low <= error <= high


@pytest.mark.parametrize('norm', ['BN', 'LN', None])
def test_statistics_after_loading_into_another_image_size(norm, tmp_path):
    """The token count of the pretraining is the file's, whatever size the model was built for."""
    torch.manual_seed(0)
    trained = DeepViT(S_LIKE, map_norm=norm)
    for block in trained.blocks[2:]:
        for parameter in block.attn.mixing.parameters():
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    torch.save(trained.state_dict(), tmp_path / 'trained.pth')
    model = DeepViT(dict(S_LIKE, image_size=256), map_norm=norm)
    report = load_pretrained(model, tmp_path / 'trained.pth')
    assert report.clean
    tokens = torch.randn(2, 1 + 8 * 6, 96)
    for ours, expected in zip(model.eval().blocks, trained.eval().blocks, strict=True):
        torch.testing.assert_close(ours(tokens), expected(tokens), rtol=1e-4, atol=1e-5)
    # The weights say it, so that a checkpoint of this model loads as it is.
    again = DeepViT(dict(S_LIKE, image_size=256), map_norm=norm)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval().blocks[2](tokens), model.blocks[2](tokens))


@pytest.mark.parametrize('stats_tokens', ['fixed', 'live'])
def test_statistics_without_correction_are_loaded_as_they_are(stats_tokens, tmp_path):
    trained = DeepViT(S_LIKE)
    torch.save(trained.state_dict(), tmp_path / 'trained.pth')
    model = DeepViT(dict(S_LIKE, image_size=256), stats_tokens=stats_tokens)
    assert load_pretrained(model, tmp_path / 'trained.pth').resized == ['stem.pos_embed']


def test_lazy_maps_with_checkpointing():
    model = DeepViT(S_LIKE, with_cp=True).train()
    outputs, maps = model.forward_lazy_maps(IMAGE, 3)
    assert len(maps) == 3
    sum(m.mixed().square().mean() for m in maps).backward()
    assert model.blocks[2].attn.mixing.theta.weight.grad.abs().sum() > 0
    for tap, expected in zip(outputs, model(IMAGE), strict=True):
        torch.testing.assert_close(tap, expected)


@pytest.mark.parametrize(
    ('arch', 'message'),
    [
        (dict(SMALL, num_heads=5), 'width=96 is no multiple of num_heads=5'),
        (dict(SMALL, image_size=60), 'image_size=60 is no multiple of stride=16'),
        (dict(S_LIKE, stride=15, image_size=60), 'stride=15 is odd'),
        (dict(SMALL, reattention=(3, 4)), r'reattention=\(3, 4\) is not within 0..3'),
    ],
)
def test_wrong_numbers(arch, message):
    with pytest.raises(ValueError, match=message):
        DeepViT(arch)


def test_wrong_out_norm():
    with pytest.raises(ValueError, match="out_norm of DeepViT must be one of .*, not 'LN'"):
        DeepViT(SMALL, out_norm='LN')


def test_map_norm_none_has_no_statistics():
    model = DeepViT(SMALL, map_norm=None)
    mixings = [m for m in model.modules() if isinstance(m, HeadMixing)]
    assert len(mixings) == 4 and not list(model.blocks.buffers())


def test_files_take_any_number_and_size_of_images():
    model, free = DeepViT('nano').eval(), torch.export.Dim.DYNAMIC
    with ops.recorded_forms(), torch.no_grad():
        recorded = torch.export.export(
            model,
            (torch.randn(2, 3, 64, 96),),
            dynamic_shapes=({0: free, 2: free, 3: free},),
            strict=False,
        ).module()
        x = torch.randn(3, 3, 80, 64)
        for y, expected in zip(recorded(x), model(x), strict=True):
            torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
