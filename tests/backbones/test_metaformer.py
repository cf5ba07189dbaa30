"""What only MetaFormer does; the dense contract is in ``test_contract.py``."""

import pytest
import torch
from torch.nn import functional as F

from attnpool_backbones.backbones import MetaFormer
from attnpool_backbones.backbones.metaformer_block import MetaFormerBlock
from attnpool_backbones.checkpoints import load_pretrained
from attnpool_backbones.layers.patch_embedding import PatchEmbedding
from attnpool_backbones.layers.token_mixers import resize_spatial_matrix
from attnpool_backbones.zoo.complexity import count_macs
from tests.backbones.deploying import assert_deploys_to_the_same
from tests.backbones.families.metaformer import CAFORMER, PPPA, PPPF, TINY, TINY_V2


def images(height, width, batch=1):
    return torch.randn(batch, 3, height, width)


def randomised(module):
    """Returns the module with parameters far from their initial values."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if parameter.dim() < 2 else 0.1)
    return module


@pytest.mark.parametrize('size', range(32, 40))
def test_stem_equals_the_official_where_that_gives_as_many_positions(size):
    stem = PatchEmbedding(3, 4, kernel_size=7, stride=4, padding=2)
    x = images(size, 48)
    official = F.conv2d(x, stem.proj.weight, stem.proj.bias, stride=4, padding=2)
    y = stem(x)
    assert y.shape == (1, 4, -(-size // 4), 12)
    assert (official.shape[2] == y.shape[2]) == (size % 4 in (0, 3))
    torch.testing.assert_close(y[:, :, : official.shape[2]], official)


@pytest.mark.parametrize('size', [(6, 4), (20, 20), (24, 17), (5, 9)])
def test_downsampling_equals_the_official_in_either_layout(size):
    downsample = PatchEmbedding(4, 6, kernel_size=3, stride=2, padding=1)
    x = torch.randn(2, 4, *size).contiguous(memory_format=torch.channels_last)
    y = downsample(x)
    official = F.conv2d(x, downsample.proj.weight, downsample.proj.bias, stride=2, padding=1)
    torch.testing.assert_close(y, official)
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ('arch', 'stage'), [(TINY, 0), (PPPA, 3), (CAFORMER, 1), (CAFORMER, 2)],
)  # fmt: skip
def test_drop_path_drops_branches_of_samples(arch, stage):
    block = randomised(MetaFormerBlock(MetaFormer.resolve_arch(arch), stage, (2, 3), 0.5))
    x = torch.randn(1, arch['widths'][stage], 2, 3)
    with torch.no_grad():
        dropped = block.train()(x.expand(32, -1, -1, -1))
        # A branch is gone or, at rate 0.5, twice as strong; the two of a block independently.
        kept = {(a, b): plain_block(block, x, a, b) for a in (0, 2) for b in (0, 2)}
    found = [
        {pair for pair, y in kept.items() if torch.allclose(sample, y[0], rtol=1e-4, atol=1e-4)}
        for sample in dropped
    ]
    assert all(len(pairs) == 1 for pairs in found)
    assert set.union(*found) == set(kept)


def plain_block(block, x, mixed, perceived):
    def scale(parameter):
        return 1 if parameter is None else parameter.view(-1, 1, 1)

    y = scale(block.layer_scale1) * block.mixer(block.norm1(x))
    x = scale(block.res_scale1) * x + mixed * y
    y = scale(block.layer_scale2) * block.mlp(block.norm2(x))
    return scale(block.res_scale2) * x + perceived * y


def test_drop_path_rates_rise_over_the_whole_network():
    model = MetaFormer(arch=TINY, drop_path_rate=0.4, out_indices=(0, 2))
    rates = [b.drop_path.drop_prob for stage in model.stages for b in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])  # the fifth block is not built


@pytest.mark.parametrize(
    ('arch', 'norms'),
    [
        ('poolformer_s12', 'GlobalNorm'),
        ('poolformer_s12_layernorm', 'LayerNorm2d'),
        ('metaformer_pppa_s12', None),
        ('caformer_s18', None),
        ('caformer_nano', 'LayerNorm2d'),
    ],
)
def test_output_norms(arch, norms):
    with torch.device('meta'):
        model = MetaFormer(arch=arch, out_indices=(1, 3))
        assert MetaFormer(arch=arch, out_norm='none').out_norms is None
        assert set(MetaFormer(arch=arch, out_norm='batch').out_norms) == set('0123')
    if norms is None:
        assert model.out_norms is None
    else:
        assert {type(m).__name__ for m in model.out_norms.values()} == {norms}
        assert set(model.out_norms) == {'1', '3'}


def test_norms_have_the_official_eps_and_biases():
    first, second = MetaFormer(arch=TINY), MetaFormer(arch=CAFORMER)
    assert {b.norm1.eps for s in first.stages for b in s.blocks} == {1e-5}
    assert {b.norm2.eps for s in second.stages for b in s.blocks} == {1e-6}
    assert all(b.norm1.bias is None for s in second.stages for b in s.blocks)
    assert second.stem.norm.eps == 1e-6 and second.stem.norm.bias is None
    assert not second.stem.norm_first and second.stages[1].downsample.norm_first
    assert first.stem.norm is None


def test_layer_scale_and_res_scale_start_as_published():
    archs = MetaFormer.archs
    assert {s: archs[f'poolformer_{s}'].layer_scale_init for s in ('s12', 's24', 's36', 'm36')} == {
        's12': 1e-5, 's24': 1e-5, 's36': 1e-6, 'm36': 1e-6,
    }  # fmt: skip
    model = MetaFormer(arch=TINY_V2)
    scaled = [b.res_scale1 is not None for stage in model.stages for b in stage.blocks]
    assert scaled == [False, False, True, True, True]
    assert (model.stages[2].blocks[0].res_scale1 == 1).all()
    assert all(b.layer_scale1 is None for stage in model.stages for b in stage.blocks)


def test_ablation_switches():
    model = MetaFormer(arch=dict(TINY, residual=False, layer_scale_init=None))
    block, x = model.stages[0].blocks[0], torch.randn(1, 16, 8, 8)
    y = block.mixer(block.norm1(x))
    torch.testing.assert_close(block(x), block.mlp(block.norm2(y)))
    model = MetaFormer(arch=dict(TINY, mlp=False))
    assert not any('mlp' in n or 'norm2' in n for n, _ in model.named_parameters())


def test_position_embeddings_are_added_before_their_stage_and_resized():
    model = MetaFormer(arch=PPPA, pretrain_img_size=(96, 64)).eval()
    embedding = model.stages[3].downsample
    assert embedding.pos_embed.shape == (1, 96, 3, 2)
    torch.nn.init.normal_(embedding.pos_embed)
    x = torch.randn(1, 64, 6, 4)
    expected = F.conv2d(x, embedding.proj.weight, embedding.proj.bias, 2, 1) + embedding.pos_embed
    torch.testing.assert_close(embedding(x), expected)
    assert embedding(torch.randn(1, 64, 9, 12)).shape == (1, 96, 5, 6)
    assert MetaFormer(arch=PPPA).stages[3].downsample.pos_embed.shape == (1, 96, 7, 7)


def test_tables_of_another_size_are_adapted():
    model = MetaFormer(arch=PPPA, pretrain_img_size=96)
    adapted = model.adapt_parameter('stages.3.downsample.pos_embed', torch.ones(1, 96, 7, 7))
    torch.testing.assert_close(adapted, torch.ones(1, 96, 3, 3))

    model = MetaFormer(arch=PPPF, pretrain_img_size=(96, 64))
    name, matrix = 'stages.3.blocks.0.mixer.weight', torch.randn(49, 49)
    adapted = model.adapt_parameter(name, matrix)
    torch.testing.assert_close(adapted, resize_spatial_matrix(matrix, (7, 7), (3, 2)))
    assert model.adapt_parameter(name, torch.randn(6, 49)) is None
    assert model.adapt_parameter('stem.proj.bias', torch.randn(3)) is None


def test_mlp_ratio_of_each_stage(tmp_path):
    # as the official classifiers take it: mlp_ratios=[8, 8, 4, 4]
    ratios = [8, 8, 4, 4]
    official = {
        f'network.{2 * s}.{b}.mlp.fc{i}.weight': torch.full(shape, 10.0 * s + b)
        for s, (depth, width) in enumerate(zip(TINY['depths'], TINY['widths'], strict=True))
        for b in range(depth)
        for i, shape in (
            (1, (ratios[s] * width, width, 1, 1)),
            (2, (width, ratios[s] * width, 1, 1)),
        )
    }
    widths = [3, *TINY['widths']]
    for s, name in enumerate(('patch_embed', 'network.1', 'network.3', 'network.5')):
        kernel = 3 if s else 7
        official[f'{name}.proj.weight'] = torch.zeros(widths[s + 1], widths[s], kernel, kernel)
    torch.save(official, tmp_path / 'official.pth')
    model = MetaFormer(arch=dict(TINY, mlp_ratio=ratios))
    report = load_pretrained(model, tmp_path / 'official.pth')
    assert not report.misshapen and not report.unexpected
    for s, stage in enumerate(model.stages):
        for b, block in enumerate(stage.blocks):
            assert (block.mlp.fc1.weight == 10 * s + b).all()


def test_deploying_leaves_no_layer_scale():
    for arch in (TINY, PPPA, PPPF, dict(TINY, mixers=('dwconv',) * 4), CAFORMER):
        model = MetaFormer(arch=arch)
        model.switch_to_deploy()
        left = [n for n, _ in model.named_parameters() if 'layer_scale' in n or 'mlp.act' in n]
        assert left == []


@pytest.mark.parametrize('norm', ['global', 'layer', 'batch'])
def test_deployed_equals_trained_without_biases(norm):
    model = MetaFormer(arch=dict(TINY, norm=norm, bias=False, layer_scale_init=1.0))
    for block in (block for stage in model.stages for block in stage.blocks):
        torch.nn.init.uniform_(block.norm2.bias)
    x = torch.randn(2, 3, 64, 96)
    model(x)  # moves running statistics
    assert_deploys_to_the_same(model, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(arch=dict(TINY, mixers=('pool',))), 'must have one entry for each stage'),
        (dict(arch=dict(TINY, mlp_ratio=(8, 4))), r'mlp_ratio=\(8, 4\).* each of 4 stages'),
        (dict(arch=dict(TINY, mixers=('fft',) * 4)), "token mixer 'fft' must be one of pool"),
        (dict(arch=dict(TINY, norm='LN')), "norm 'LN' of MetaFormer must be one of global"),
        (dict(arch=dict(TINY, act='tanh')), "activation 'tanh' must be one of gelu"),
        (dict(arch=dict(TINY, pool_size=4)), 'pool_size=4 must be odd'),
        (dict(arch=dict(TINY, pos_embed_stages=(4,))), r'pos_embed_stages=\(4,\) of MetaFormer'),
        (dict(arch='nano', out_norm='LN'), "norm 'LN' of MetaFormer must be one of global"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        MetaFormer(**options)


PRINTED = {
    'random': (11.9, 3.3),  # and 21 million frozen values
    'dwconv': (11.9, 1.8),
    **dict.fromkeys(('pool5', 'pool7', 'pool9', 'layernorm', 'batchnorm', 'nonorm'), (11.9, 1.8)),
    **dict.fromkeys(('relu', 'silu', 'noresidual'), (11.9, 1.8)),
    'nomlp': (2.5, 0.2),
}
"""arXiv 2111.11418, table 5: ablation of S12 -> 1e6 parameters, 1e9 multiply-accumulates."""


@pytest.mark.parametrize('name', PRINTED)
def test_sizes_of_the_ablations_are_those_printed(name):
    with torch.device('meta'):
        model = MetaFormer(f'poolformer_s12_{name}', out_norm='none').eval()
    width = model.out_channels[-1]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    trained += 1000 * (width + 1) + 2 * width * (name != 'nonorm')
    x = torch.zeros(1, 3, 224, 224, device='meta')
    macs = count_macs(lambda: model(x)) + 1000 * width
    assert (round(trained / 1e6, 1), round(macs / 1e9, 1)) == PRINTED[name]
