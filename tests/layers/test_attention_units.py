"""The units of the attention ResNets, alone: equal to the official code, start and gradients."""

import numpy as np
import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from torch import nn

from attnpool_backbones.backbones.attn_resnet_archs import AttnResNetArch
from attnpool_backbones.checkpoints.attn_resnet import RESNET
from attnpool_backbones.layers.bam import BAM
from attnpool_backbones.layers.cbam import CBAM
from attnpool_backbones.layers.global_context import GC
from attnpool_backbones.layers.residual_block import Bottleneck
from attnpool_backbones.layers.selective_kernel import SelectiveKernel
from attnpool_backbones.layers.sge import SGE
from attnpool_backbones.layers.squeeze_excite import SE
from tests.golden import load_golden, official_state_dict


def _sk_bottleneck():
    arch = AttnResNetArch(depths=(1,), widths=(64,), attention='sk')
    return Bottleneck(256, 64, 1, 'sk', arch.unit_options(), 0.0, dict(type='BN'))


OFFICIAL = {
    'sge_g8': ('layer1.0.sge.', lambda: SGE(64, groups=8)),
    'sge_g64': ('layer1.0.sge.', lambda: SGE(64)),
    'sge_g64_c256': ('layer1.0.sge.', lambda: SGE(256)),
    'se_r16': ('layer1.0.se.', lambda: SE(64)),
    'cbam': ('layer1.0.cbam.', lambda: CBAM(64)),
    'bam_det': ('bam1.', lambda: BAM(64)),
    'bam_cls_square': ('bam1.', lambda: BAM(64)),
    'gc_att_add': ('layer1.0.gc.', lambda: GC(64)),
    'sk_bottleneck': ('layer1.0.', _sk_bottleneck),
}
"""Unit of ``sge_units.npz``: what comes before its names in a network, and our layer."""
NOT_COMPARED = {
    'sge_1x1_nan',  # NaN in the official code, not here
    'sge_init',  # compared by test_sge_starts_like_the_official_code
}


def official_unit(name):
    """Returns our layer with the weights of a unit, and the unit's input and output."""
    units = load_golden('sge_units')
    prefix, build = OFFICIAL[name]
    named = {prefix + n: v for n, v in official_state_dict(units, kind=f'{name}.').items()}
    converted = {n.removeprefix(prefix): v for n, v in RESNET.convert(named).items()}
    unit = build().eval()
    unit.load_state_dict(converted)
    return unit, torch.from_numpy(units[f'{name}.x']), torch.from_numpy(units[f'{name}.y'])


@pytest.mark.parametrize('name', OFFICIAL)
@torch.no_grad()
def test_equals_the_official_code(name):
    unit, x, y = official_unit(name)
    assert float((unit(x) - y).abs().max()) <= 2e-6


def test_every_official_unit_is_compared():
    names = {name.partition('.')[0] for name in load_golden('sge_units')}
    assert names - NOT_COMPARED == set(OFFICIAL)


def test_sge_starts_like_the_official_code():
    units = load_golden('sge_units')
    y = SGE(64)(torch.from_numpy(units['sge_init.x']))
    np.testing.assert_allclose(y.detach().numpy(), units['sge_init.y'], atol=2e-6)


def test_sge_gives_a_number_where_the_official_code_does_not():
    units = load_golden('sge_units')
    assert np.isnan(units['sge_1x1_nan.y']).all()
    assert SGE(64, groups=8)(torch.from_numpy(units['sge_1x1_nan.x'])).isfinite().all()


UNITS = {
    'se': lambda: SE(8, reduction=2),
    'cbam': lambda: CBAM(8, reduction=2),
    'gc': lambda: GC(8, reduction=2),
    'bam': lambda: BAM(8, reduction=2),
    'sk': lambda: SelectiveKernel(8, 2, 4, 2, dict(type='BN')),
}


def _random(build):
    unit = build().double().eval()
    for parameter in unit.parameters():
        nn.init.normal_(parameter, std=0.5)
    return unit


@pytest.mark.parametrize('name', UNITS)
def test_gradcheck(name):
    unit = _random(UNITS[name])
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, x)
    names, parameters = zip(*unit.named_parameters(), strict=True)
    gradients = torch.autograd.grad(unit(x).square().sum(), parameters)
    idle = [n for n, gradient in zip(names, gradients, strict=True) if not gradient.any()]
    # one number added to all scores changes no softmax
    assert idle == (['conv_mask.bias'] if name == 'gc' else [])


@pytest.mark.parametrize('name', UNITS)
def test_memory_format_changes_nothing(name):
    unit = _random(UNITS[name])
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(unit(x.to(memory_format=torch.channels_last)), unit(x))


def test_gates_at_the_start():
    x = torch.randn(2, 32, 4, 4)
    spatial = CBAM(32).spatial.eval()
    torch.testing.assert_close(spatial(x), x / 2)
    gc = GC(32)
    shift = gc(x) - x  # the last layer's bias, the same at all positions
    torch.testing.assert_close(shift, gc.channel_add_conv[3].bias.view(1, -1, 1, 1).expand_as(x))


def test_init_weights_restores_the_start():
    for build in (lambda: SGE(64), *(UNITS[name] for name in ('se', 'cbam', 'gc', 'bam'))):
        unit = build()
        start = {n: p.std(correction=0) for n, p in unit.named_parameters()}
        for parameter in unit.parameters():
            nn.init.constant_(parameter, 7)
        unit.init_weights()
        for name, parameter in unit.named_parameters():
            assert not (parameter == 7).any(), name
            assert (start[name] == 0) == (parameter.std(correction=0) == 0), name


each_norm_of_vectors = pytest.mark.parametrize(
    ('build', 'name'),
    [
        (lambda norm_cfg: BAM(32, norm_cfg=norm_cfg), 'channel.norm'),
        (lambda norm_cfg: SelectiveKernel(32, 1, 4, 4, norm_cfg), 'reduce_bn'),
    ],
    ids=['bam', 'sk'],
)


@each_norm_of_vectors
def test_hooks_see_the_norm_of_a_single_image(build, name):
    unit, seen = build(dict(type='BN')).eval(), []
    unit.get_submodule(name).register_forward_hook(lambda *_: seen.append(name))
    unit(torch.randn(1, 32, 6, 6))
    assert seen == [name]


@each_norm_of_vectors
@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
def test_trains_on_a_single_image(build, name, norm):
    # What mmengine's Runner does with SyncBN where there is one process.
    unit = revert_sync_batchnorm(build(dict(type=norm)))
    norm = unit.get_submodule(name)
    before = norm.running_mean.clone()
    unit(torch.randn(1, 32, 6, 6)).sum().backward()
    torch.testing.assert_close(norm.running_mean, before)
    unit(torch.randn(2, 32, 6, 6))
    assert not norm.running_mean.equal(before)


@pytest.mark.parametrize(
    'build',
    [SE, CBAM, GC, BAM, lambda channels: SelectiveKernel(channels, 1, 4, 16, dict(type='BN'))],
    ids=['se', 'cbam', 'gc', 'bam', 'sk'],
)
def test_a_bottleneck_without_channels_is_refused(build):
    with pytest.raises(ValueError, match='8 channels, reduction=16'):
        build(8)


def test_groups_of_selective_kernels_must_divide_the_channels():
    with pytest.raises(ValueError, match='channels=48, groups=32'):
        SelectiveKernel(48, 1, 32, 16, dict(type='BN'))
