"""Published MetaFormer checkpoints of every origin load completely."""

import pytest
import torch

from attnpool_backbones.backbones import MetaFormer
from attnpool_backbones.checkpoints import load_pretrained
from attnpool_backbones.checkpoints.known_formats import recognise
from attnpool_backbones.checkpoints.metaformer import FIRST_PAPER, OWN, SECOND_PAPER, TIMM
from tests.backbones.families.metaformer import CAFORMER, PPPF, RANDFORMER
from tests.golden import load_golden, official_state_dict

TINY_POOLFORMER = dict(depths=(1, 1, 2, 1), widths=(16, 32, 40, 64), out_norm='global')


def to_timm(state_dict):
    """Renames an official PoolFormer or baselines state dict as timm does."""
    import re

    renamed = {}
    for name, value in state_dict.items():
        name = re.sub(r'^patch_embed\.proj', 'stem.conv', name)
        name = re.sub(r'^network\.([0246])\.(\d+)\.',
                      lambda m: f'stages.{int(m[1]) // 2}.blocks.{m[2]}.', name)  # fmt: skip
        name = re.sub(r'^network\.([135])\.proj',
                      lambda m: f'stages.{int(m[1]) // 2 + 1}.downsample.conv', name)  # fmt: skip
        name = re.sub(r'layer_scale_([12])$', r'layer_scale\1.scale', name)
        name = re.sub(r'^downsample_layers\.0\.(conv|post_norm)',
                      lambda m: f'stem.{m[1].removeprefix("post_")}', name)  # fmt: skip
        name = re.sub(r'^downsample_layers\.(\d)\.(conv|pre_norm)',
                      lambda m: f'stages.{m[1]}.downsample.{m[2].removeprefix("pre_")}',
                      name)  # fmt: skip
        name = re.sub(r'^stages\.(\d)\.(\d+)\.', r'stages.\1.blocks.\2.', name)
        name = re.sub(r'^norm\.', 'head.norm.', name)
        name = re.sub(r'^head\.(weight|bias|fc)', r'head.fc.\1', name)
        if re.match(r'stages\.[01]\..*(fc[12]|pwconv[12])\.weight$', name) and value.dim() == 2:
            value = value[..., None, None]
        renamed[name] = value
    return renamed


def save(state_dict, path):
    torch.save(state_dict, path)
    return str(path)


def outputs(model, fixture):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(fixture['input']))


def assert_equal_to(model, fixture, kind='out'):
    for index, y in zip(model.out_indices, outputs(model, fixture), strict=True):
        expected = torch.from_numpy(fixture[f'{kind}{index}'])
        torch.testing.assert_close(y, expected, rtol=0, atol=2e-5)


def test_classifier_leaves_the_output_norms_as_identity(tmp_path):
    fixture = load_golden('poolformer_tiny')
    state_dict = {'state_dict': official_state_dict(fixture, 'cls_')}
    model = MetaFormer(arch=TINY_POOLFORMER)
    report = load_pretrained(model, save(state_dict, tmp_path / 'x.pth'))
    assert len(report.fresh) == 8 and not report.missing and not report.unexpected
    assert sorted(report.leftovers) == ['head.bias', 'head.weight', 'norm.bias', 'norm.weight']
    model.out_norms = None
    # Names determine the values, so the trunk is that of the dense model.
    assert_equal_to(model, fixture, 'raw')


def test_mmpretrain_with_its_prefix(tmp_path):
    fixture = load_golden('poolformer_tiny')
    state_dict = {f'backbone.{n}': v for n, v in official_state_dict(fixture).items()}
    state_dict['head.fc.weight'] = torch.zeros(10, 64)
    model = MetaFormer(arch=TINY_POOLFORMER)
    report = load_pretrained(
        model, save({'meta': {}, 'state_dict': state_dict}, tmp_path / 'x.pth')
    )
    assert not report.missing and not report.unexpected
    assert_equal_to(model, fixture)


def test_norms_of_outputs_that_are_not_asked_for_are_expected_leftovers(tmp_path):
    fixture = load_golden('poolformer_tiny')
    model = MetaFormer(arch=TINY_POOLFORMER, out_indices=(1, 2))
    report = load_pretrained(model, save(official_state_dict(fixture), tmp_path / 'x.pth'))
    assert not report.missing and not report.unexpected
    assert_equal_to(model, fixture)


@pytest.mark.parametrize(
    ('file', 'kind', 'arch'),
    [
        ('poolformer_tiny', 'cls_', dict(TINY_POOLFORMER, out_norm=None)),
        ('metaformer_caformer_tiny_official', '', CAFORMER),
    ],
)
def test_timm(file, kind, arch, tmp_path):
    fixture = load_golden(file)
    state_dict = to_timm(official_state_dict(fixture, kind))
    assert recognise(state_dict) is TIMM
    model = MetaFormer(arch=arch)
    report = load_pretrained(model, save(state_dict, tmp_path / 'x.pth'))
    assert not report.missing and not report.unexpected
    assert_equal_to(model, fixture, 'raw' if kind else 'out')


@pytest.mark.parametrize(
    ('file', 'arch', 'name'),
    [
        ('poolformer_hybrid_pppf', PPPF, 'stages.3.blocks.0.mixer.weight'),
        ('metaformer_randformer_tiny_official', RANDFORMER, 'stages.3.blocks.0.mixer.weight'),
    ],
)
def test_spatial_matrices_of_unknown_grids_are_missing(file, arch, name, tmp_path):
    # 24 and 6 tokens are no square grids; at 224 pixels the model has 196 and 49.
    state_dict = official_state_dict(load_golden(file))
    model = MetaFormer(arch=arch, pretrain_img_size=128)
    report = load_pretrained(model, save(state_dict, tmp_path / 'x.pth'))
    assert name in report.missing
    assert '6x6 in the file, 16x16 here' in report.misshapen[name]


@pytest.mark.parametrize(
    ('file', 'known'),
    [
        ('poolformer_s12', FIRST_PAPER),
        ('poolformer_hybrid_pppa', FIRST_PAPER),
        ('metaformer_identityformer_tiny_official', SECOND_PAPER),
        ('metaformer_convformer_tiny_official', SECOND_PAPER),
    ],
)
def test_recognised_by_names(file, known):
    assert recognise(official_state_dict(load_golden(file))) is known


@pytest.mark.parametrize('arch', ['nano', 'caformer_nano', 'metaformer_pppa_s12'])
def test_own_names_are_recognised(arch):
    with torch.device('meta'):
        assert recognise(MetaFormer(arch=arch).state_dict()) is OWN
