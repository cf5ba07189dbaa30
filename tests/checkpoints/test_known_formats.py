"""Recognition: every published format is known by its names, and by no other format."""

import pytest

from attnpool_backbones import backbones
from attnpool_backbones.checkpoints import FORMATS, recognise
from attnpool_backbones.checkpoints.checkpoint_format import CheckpointFormat
from tests.golden import DATA, load_golden

FAMILIES = {
    'bam_': 'AttnResNet',
    'cbam_': 'AttnResNet',
    'coatnet_': 'CoAtNet',
    'deepvit_': 'DeepViT',
    'gc_': 'AttnResNet',
    'metaformer_': 'MetaFormer',
    'patchconvnet_': 'PatchConvNet',
    'poolformer_': 'MetaFormer',
    'resnet50': 'AttnResNet',
    'se_': 'AttnResNet',
    'sge_resnet': 'AttnResNet',
    'sk_': 'AttnResNet',
}
"""Registered type of each family of fixtures, by the start of the fixture's name."""
FIXTURES = sorted(p.stem for p in DATA.glob('*.npz') if not p.stem.endswith(('_unit', '_units')))
BACKBONES = [name for name in backbones.__all__ if name != 'DenseBackbone']


@pytest.mark.parametrize('fixture', FIXTURES)
def test_official_names_have_one_format(fixture):
    backbone = next(b for start, b in FAMILIES.items() if fixture.startswith(start))
    arrays = load_golden(fixture)
    for kind in [name.removesuffix('keys') for name in arrays if name.endswith('keys')]:
        names = [str(name) for name in arrays[f'{kind}keys']]
        matching = [known for known in FORMATS if known.matches(names)]
        assert [known.backbone for known in matching] == [backbone], [k.name for k in matching]


@pytest.mark.parametrize('name', BACKBONES)
def test_own_names_have_one_format(name):
    state_dict = getattr(backbones, name)('nano').state_dict()
    matching = [known for known in FORMATS if known.matches(state_dict)]
    assert [known.backbone for known in matching] == [name], [k.name for k in matching]
    assert matching[0].convert(state_dict).keys() == state_dict.keys()
    assert not [n for n in state_dict if not matching[0].is_known(n)]


@pytest.mark.parametrize('arch', ['nano_linear', 'nano_attention', 'nano_linear_attention'])
def test_ablations_of_patchconvnet_have_one_format(arch):
    state_dict = backbones.PatchConvNet(arch).state_dict()
    matching = [known for known in FORMATS if known.matches(state_dict)]
    assert [known.backbone for known in matching] == ['PatchConvNet']
    assert not [n for n in state_dict if not matching[0].is_known(n)]


def test_unknown_names_have_none():
    assert recognise(['features.0.weight', 'classifier.bias']) is None
    assert recognise([]) is None


def test_each_pattern_of_a_signature_needs_a_name():
    known = CheckpointFormat(
        name='x', backbone='X', signature=(r'a\.\d+$', r'b'), convert=dict, leftovers=(r'head\.',)
    )
    assert known.matches(['bias', 'a.10'])
    assert not known.matches(['a.10'])
    assert not known.matches(['bias', 'x.a.1'])
    assert known.is_leftover('head.weight')
    assert not known.is_leftover('x.head.weight')
    assert known.is_known('stages.0.x') and not known.is_known('neck.0.x')


def test_format_names_are_distinct():
    names = [known.name for known in FORMATS]
    assert len(set(names)) == len(names)
