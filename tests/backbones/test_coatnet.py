"""What is particular to CoAtNet."""

import pytest
import torch
from torch import nn

from attnpool_backbones.backbones.coatnet import CoAtNet
from attnpool_backbones.checkpoints import load_pretrained, recognise
from tests.backbones.families.coatnet import SMALL, SMALL_RW, SMALL_VIT
from tests.golden import load_golden, official_state_dict


@pytest.mark.parametrize('arch', CoAtNet.archs)
def test_every_variant_builds(arch):
    with torch.device('meta'):
        model = CoAtNet(arch)
    columns = {'vit_rel': (16,) * 4, 'nano_vit_rel': (8,) * 4}
    assert model.out_strides == columns.get(arch, (4, 8, 16, 32))
    assert len(model.out_channels) == 4
    if arch in '01234567':
        assert model.out_channels[0] >= 96


def test_layouts_have_their_blocks():
    model = CoAtNet(dict(SMALL, layout=('C', 'C', 'CT', 'T'), depths=(1, 1, (1, 2), 1)))
    kinds = [[type(b).__name__[0] for b in stage.blocks] for stage in model.stages]
    assert kinds == [['M'], ['M'], ['M', 'T', 'T'], ['T']]


@pytest.mark.parametrize(
    ('arch', 'message'),
    [
        (dict(bias='tabel'), "bias='tabel' of CoAtNet must be one of table, mlp, none"),
        (dict(bias='mlp', bias_place='after'), "bias_place='after'.* needs bias='table', not"),
        (dict(layout='CCT'), 'must have one entry a stage'),
        (dict(layout='CCXT'), "not 'X' with depth"),
        (dict(layout=('C', 'C', 'CT', 'T')), "not 'CT' with depth 5"),
        (dict(depths=(2, 3, (5, 1), 2)), r"not 'T' with depth \(5, 1\)"),
        (dict(patch_size=16), "all stages 'T', not CCTT"),
        (dict(SMALL_VIT, patch_size=12), 'patch_size=12 of CoAtNet must be a power of two'),
        (dict(head_dim=40), 'head_dim=40 of CoAtNet must divide the attention width 384'),
    ],
)
def test_wrong_arch(arch, message):
    with pytest.raises(ValueError, match=message):
        CoAtNet(arch)


@pytest.mark.parametrize('windows', [(14, 7), (7, None, 7, 7), (None, None, 0, 7)])
def test_wrong_windows(windows):
    with pytest.raises(ValueError, match=r'windows=.* of CoAtNet must have .* attention \(2, 3\)'):
        CoAtNet(SMALL, windows=windows)


@torch.no_grad()
def test_windows_as_large_as_the_map_change_nothing():
    options = dict(pretrain_size=64)
    whole = CoAtNet(SMALL, **options).eval()
    windows = CoAtNet(SMALL, windows=(None, None, 4, 2), **options).eval()
    windows.load_state_dict(whole.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(windows(x), whole(x), rtol=1e-4, atol=1e-5)
    x = torch.randn(2, 3, 64, 96)
    assert not torch.allclose(windows(x)[2], whole(x)[2], atol=1e-3)


def official(tmp_path, name):
    path = tmp_path / 'official.pth'
    weights = official_state_dict(load_golden(f'coatnet_{name}'))
    torch.save(weights, path)
    return path, weights


def test_tables_of_another_size_are_resized(tmp_path):
    path, weights = official(tmp_path, 'small_paper')  # made for 64x64
    model = CoAtNet(SMALL).eval()  # tables for 224x224
    report = load_pretrained(model, path)
    assert len(report.resized) == 3 and not report.missing and not report.unexpected
    name = 'stages.2.blocks.0.attn.{}.relative_position_bias_table'
    table = model.get_parameter(name.format('bias'))
    assert table.shape == (27 * 27, 3)
    # Offset 0 is in the middle of both.
    torch.testing.assert_close(table[13 * 28], weights[name.format('rel_pos')][3 * 8])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_tables_of_a_shorter_type_are_resized_in_that_of_the_model(dtype, tmp_path):
    path, weights = official(tmp_path, 'small_paper')

    def table(saved):
        torch.save(saved, path)
        model = CoAtNet(SMALL)
        load_pretrained(model, path)
        return model.stages[2].blocks[0].attn.bias.relative_position_bias_table

    short = {name: value.to(dtype) for name, value in weights.items()}
    assert torch.equal(table(short), table({name: value.float() for name, value in short.items()}))


def test_norm_of_the_last_map_is_loaded(tmp_path):
    path, weights = official(tmp_path, 'small_paper')
    model = CoAtNet(SMALL, pretrain_size=64)
    report = load_pretrained(model, path)
    assert torch.equal(model.out_norms['3'].weight, weights['norm.weight'])
    assert all(name.startswith('out_norms.') for name in report.fresh) and len(report.fresh) == 6
    report = load_pretrained(CoAtNet(SMALL, pretrain_size=64, out_indices=(0, 2)), path)
    assert not report.unexpected and 'out_norms.3.weight' in report.leftovers


def test_timm_names_of_every_kind_of_block():
    """Renames the parameters of small models as timm does and back."""
    timm_names = {
        'gamma1': 'ls1.gamma',
        'gamma2': 'ls2.gamma',
        'attn.bias.fc1.weight': 'attn.rel_pos.mlp.fc1.weight',
        'norm1.running_mean': 'norm1.norm.running_mean',
        'shortcut.weight': 'shortcut.expand.weight',
    }
    prefix = 'stages.2.blocks.0.'
    weights = {
        'stem.conv1.weight': torch.zeros(1),
        'stages.0.blocks.0.conv1_1x1.weight': torch.zeros(1),
        'stages.0.blocks.0.se_early.fc2.bias': torch.zeros(1),
        'stages.3.blocks.0.conv_dw.weight': torch.zeros(1),
        'stages.3.blocks.0.ls.gamma': torch.zeros(1),
        'norm.running_var': torch.zeros(1),
        'head.fc.weight': torch.zeros(1),
        **{prefix + name: torch.zeros(1) for name in timm_names.values()},
    }
    known = recognise(weights)
    assert known.name == 'CoAtNet of timm'
    assert set(known.convert(weights)) == {
        'stem.conv1.weight',
        'stages.0.blocks.0.expand.weight',
        'stages.0.blocks.0.se.expand.bias',
        'stages.3.blocks.0.dwconv.weight',
        'stages.3.blocks.0.gamma',
        'out_norms.3.running_var',
        'head.fc.weight',
        *(prefix + name for name in timm_names),
    }


@pytest.mark.parametrize(
    'arch', [SMALL, SMALL_RW, dict(SMALL, conv='convnext'), SMALL_VIT], ids=str
)
def test_own_names_are_recognised(arch):
    assert recognise(CoAtNet(arch).state_dict()).name == 'CoAtNet of this package'


def test_norms_in_eval_mode_are_not_computed_on_maps(monkeypatch):
    model = CoAtNet(SMALL, norm_eval=True).train()
    called, norm = [], nn.functional.batch_norm
    monkeypatch.setattr(
        nn.functional, 'batch_norm', lambda *args, **kw: called.append(1) or norm(*args, **kw)
    )
    model(torch.randn(1, 3, 64, 64))
    assert not called
    model.norm_eval = False
    model.train()(torch.randn(2, 3, 64, 64))
    assert called
