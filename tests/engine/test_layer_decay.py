import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from attnpool_backbones.registry import MODELS
from tests.backbones.families import FAMILIES, VARIANTS

every_variant = pytest.mark.parametrize(
    'config', [pytest.param(v.config, id=v.name) for v in VARIANTS if not v.slow]
)


class Segmentor(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.decode_head = nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4))


class Wrapped(nn.Module):
    """What DDP is to the constructor."""

    def __init__(self, module):
        super().__init__()
        self.module = module


def build(config, **options):
    with torch.device('meta'):
        return Segmentor(MODELS.build(dict(config, **options)))


def build_family(name, **options):
    return build(FAMILIES[name].config, **options)


def groups_of(model, optimizer=None, **paramwise):
    """Returns learning rate and weight decay by parameter name."""
    cfg = dict(
        optimizer=optimizer or dict(type='AdamW', lr=1.0, weight_decay=0.5),
        constructor='attnpool_backbones.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=paramwise,
    )
    names = {id(p): n.removeprefix('module.') for n, p in model.named_parameters()}
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    return {names[id(p)]: (g['lr'], g['weight_decay']) for g in groups for p in g['params']}


@every_variant
def test_rates_fall_from_the_heads_to_the_stem(config):
    model = build(config)
    groups = groups_of(model, decay_rate=0.5)
    assert set(groups) == {name for name, p in model.named_parameters() if p.requires_grad}
    backbone = model.backbone
    layers = backbone.layer_prefixes()
    for depth, prefixes in enumerate(layers):
        rates = {
            rate
            for name, (rate, _) in groups.items()
            if any(name.startswith(f'backbone.{prefix}.') for prefix in prefixes)
        }
        assert rates == {0.5 ** (len(layers) - depth)}
    rates = [rate for rate, _ in groups.values()]
    assert min(rates) == 0.5 ** len(layers)
    assert {rate for n, (rate, _) in groups.items() if n.startswith('decode_head')} == {1.0}
    assert {rate for n, (rate, _) in groups.items() if 'out_norms' in n} <= {1.0}


@every_variant
def test_weight_decay_is_for_matrices_only(config):
    model = build(config)
    free = ('cls_token', 'pos_embed', 'relative_position_bias_table', '.sge.')
    shapes = {name: p.shape for name, p in model.named_parameters()}
    for name, (_, weight_decay) in groups_of(model, decay_rate=0.9).items():
        owner = model.get_submodule(name.rpartition('.')[0])
        has_none = (
            len(shapes[name]) <= 1
            or isinstance(owner, nn.LayerNorm)
            or any(word in name for word in free)
        )
        assert weight_decay == (0.0 if has_none else 0.5), name


def test_sees_the_named_parameters():
    names = groups_of(build_family('DeepViT'), decay_rate=0.9, no_decay=['mlp'])
    assert names['backbone.stem.pos_embed'][1] == 0.5
    assert names['backbone.blocks.0.mlp.fc1.weight'][1] == 0.0


def test_frozen_parameters_are_left_out():
    groups = groups_of(build_family('MetaFormer', frozen_stages=1), decay_rate=0.9)
    assert not any(n.startswith(('backbone.stem', 'backbone.stages.0')) for n in groups)
    assert any(n.startswith('backbone.stages.1') for n in groups)


def test_wrapped_model():
    model = build_family('CoAtNet')
    assert groups_of(Wrapped(model), decay_rate=0.7) == groups_of(model, decay_rate=0.7)


def test_other_optimizers():
    groups = groups_of(build_family('MetaFormer'), dict(type='SGD', lr=2.0), decay_rate=1)
    assert set(groups.values()) == {(2.0, 0.0)}


@pytest.mark.parametrize('paramwise', [{}, dict(decay_rate=0), dict(decay_rate=1.1)])
def test_decay_rate_is_checked(paramwise):
    with pytest.raises(ValueError, match='0 < decay_rate <= 1'):
        groups_of(build_family('MetaFormer'), **paramwise)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="'norm_decay_mult'.*knows decay_rate, no_decay"):
        groups_of(build_family('MetaFormer'), decay_rate=0.9, norm_decay_mult=0.0)
    with pytest.raises(ValueError, match='needs lr'):
        groups_of(build_family('MetaFormer'), dict(type='AdamW'), decay_rate=0.9)


@pytest.mark.parametrize('model', [nn.Conv2d(3, 3, 1), Segmentor(nn.Conv2d(3, 8, 1))])
def test_backbone_must_know_its_layers(model):
    with pytest.raises(TypeError, match='get_layer_depth'):
        groups_of(model, decay_rate=0.9)
