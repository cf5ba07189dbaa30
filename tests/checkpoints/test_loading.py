"""Loading: official and own checkpoints of PatchConvNet in every form, and what is reported."""

import argparse
import logging

import pytest
import torch
from mmengine.model import PretrainedInit
from safetensors.torch import save_file
from torch import nn

from attnpool_backbones.backbones import AttnResNet, PatchConvNet
from attnpool_backbones.checkpoints import CheckpointError, CheckpointMismatch, load_pretrained
from attnpool_backbones.registry import MODELS
from tests.golden import load_golden, official_state_dict

ARCH = dict(width=64, depth=4)
POOLING = 1 + 2 + 16 + 2 + 2  # token, gammas, two norms, four projections and the MLP; norm; head


@pytest.fixture(scope='module')
def official():
    return official_state_dict(load_golden('patchconvnet_small'))


@pytest.fixture
def official_file(official, tmp_path):
    torch.save(official, tmp_path / 'official.pth')
    return tmp_path / 'official.pth'


def assert_loaded(model, official):
    assert torch.equal(model.stem[2].weight, official['patch_embed.proj.2.0.weight'])
    for i, block in enumerate(model.blocks):
        assert torch.equal(block.gamma, official[f'blocks.{i}.gamma_1'])
        branch = f'blocks.{i}.attn.qkv_pos'
        assert torch.equal(block.se.expand.bias, official[f'{branch}.4.conv_expand.bias'])
        assert torch.equal(block.conv2.weight, official[f'{branch}.5.weight'])


CONTAINERS = {
    'bare': lambda weights: weights,
    'model': lambda weights: {'model': weights},
    'state_dict': lambda weights: {'state_dict': weights},
    'module.': lambda weights: {f'module.{k}': v for k, v in weights.items()},
    'backbone.': lambda weights: {f'backbone.{k}': v for k, v in weights.items()},
    'training': lambda weights: {
        'model': weights,
        'optimizer': {'state': {}, 'param_groups': [{'lr': 1e-3}]},
        'epoch': 299,
        'args': argparse.Namespace(model='S60', lr=3e-3),
    },
    'half precision': lambda weights: {k: v.half() for k, v in weights.items()},
}


@pytest.mark.parametrize('container', CONTAINERS)
def test_init_cfg_takes_official_files(container, official, tmp_path):
    torch.save(CONTAINERS[container](official), tmp_path / 'x.pth')
    model = PatchConvNet(ARCH, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')))
    model.init_weights()
    if container == 'half precision':
        official = {name: value.half().float() for name, value in official.items()}
    assert_loaded(model, official)


@pytest.mark.parametrize('kind', [PretrainedInit, 'PretrainedInit', 'mmengine.Pretrained'])
def test_init_cfg_by_other_names_of_its_type(kind, official, tmp_path):
    torch.save(official, tmp_path / 'x.pth')
    init_cfg = dict(type=kind, checkpoint=str(tmp_path / 'x.pth'))
    model = PatchConvNet(ARCH, init_cfg=init_cfg)
    model.init_weights()
    assert_loaded(model, official)


def test_other_initialisers_run_before_checkpoints(official, tmp_path):
    lacking = {name: value for name, value in official.items() if name != 'blocks.0.norm1.bias'}
    torch.save(lacking, tmp_path / 'x.pth')
    init_cfg = [
        dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')),
        dict(type='Constant', layer='LayerNorm2d', val=2, bias=3),
    ]
    model = PatchConvNet(ARCH, init_cfg=init_cfg)
    model.init_weights()
    assert_loaded(model, official)
    norm = model.blocks[0].norm
    assert torch.equal(norm.weight, official['blocks.0.norm1.weight'])
    assert (norm.bias == 3).all()


def test_takes_safetensors(official, tmp_path):
    save_file(official, tmp_path / 'x.safetensors')
    model = PatchConvNet(ARCH)
    report = load_pretrained(model, tmp_path / 'x.safetensors')
    assert_loaded(model, official)
    assert report.clean and len(report.loaded) == len(model.state_dict())


def test_takes_an_explicit_prefix(official, tmp_path):
    torch.save({f'teacher.{k}': v for k, v in official.items()}, tmp_path / 'x.pth')
    model = PatchConvNet(ARCH)
    init_cfg = dict(checkpoint=str(tmp_path / 'x.pth'), prefix='teacher', map_location='cpu')
    assert load_pretrained(model, **init_cfg).clean
    assert_loaded(model, official)


def test_pooling_is_an_expected_leftover_or_loaded(official, official_file):
    dense = load_pretrained(PatchConvNet(ARCH), official_file)
    assert dense.clean
    assert len(dense.leftovers) == len(official) - len(dense.loaded)
    assert {'pool.cls_token', 'pool.mlp.2.bias', 'pool_norm.weight', 'head.bias'} <= {
        *dense.leftovers
    }
    model = PatchConvNet(ARCH, pooling=True)
    pooled = load_pretrained(model, official_file)
    assert pooled.clean
    assert pooled.leftovers == ['head.weight', 'head.bias']
    assert len(pooled.loaded) == len(model.state_dict()) == len(official) - 2
    assert torch.equal(model.pool.mlp[0].bias, official['blocks_token_only.0.mlp.fc1.bias'])


def test_classifiers_of_one_token_per_class_are_expected_leftovers(tmp_path):
    torch.save(official_state_dict(load_golden('patchconvnet_small_multi')), tmp_path / 'x.pth')
    model = PatchConvNet(dict(**ARCH, num_class_tokens=10), pooling=True)
    report = load_pretrained(model, tmp_path / 'x.pth')
    assert report.clean
    assert len(report.leftovers) == 20
    assert model.pool.cls_token.shape == (1, 10, 64)


def test_blocks_behind_the_last_output_are_expected_leftovers(official_file):
    report = load_pretrained(PatchConvNet(ARCH, out_indices=(0, 1)), official_file)
    assert report.clean
    assert 'blocks.3.conv1.weight' in report.leftovers


def test_a_deeper_variant_is_reported(official_file):
    report = load_pretrained(PatchConvNet(dict(ARCH, depth=3)), official_file)
    assert not report.missing
    assert len(report.unexpected) == 13
    assert all(name.startswith('blocks.3.') for name in report.unexpected)


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.'])
def test_own_checkpoints_load_as_they_are(prefix, tmp_path):
    trained = PatchConvNet(ARCH, pooling=True)
    weights = {f'{prefix}{k}': v for k, v in trained.state_dict().items()}
    if prefix:
        weights[prefix.replace('backbone', 'neck') + 'convs.0.weight'] = torch.ones(2)
    torch.save({'meta': {'epoch': 1}, 'state_dict': weights}, tmp_path / 'x.pth')
    model = PatchConvNet(ARCH)
    report = load_pretrained(model, tmp_path / 'x.pth')
    assert report.clean
    assert {name.partition('.')[0] for name in report.leftovers} == {'pool', 'pool_norm'}
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name])


def test_report_is_short_and_logged_once(official_file, caplog):
    logger = logging.getLogger('test_loading')
    with caplog.at_level(logging.INFO, 'test_loading'):
        report = load_pretrained(PatchConvNet(ARCH), official_file, logger=logger)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [('INFO', str(report))]
    lines = str(report).splitlines()
    assert len(lines) <= 6
    assert 'official.pth (PatchConvNet of facebookresearch/deit): 56 tensors loaded' in lines[0]
    assert '0 unexpected, 0 missing' in lines[0]
    assert f'{POOLING} expected leftovers' in lines[0]


def test_report_of_a_poor_file_is_a_warning(official, tmp_path, caplog):
    weights = {k: v for k, v in official.items() if k != 'blocks.0.gamma_1'}
    weights['ema_decay'] = torch.ones(3)
    torch.save(weights, tmp_path / 'x.pth')
    logger = logging.getLogger('test_loading')
    report = load_pretrained(PatchConvNet(ARCH), tmp_path / 'x.pth', logger=logger)
    assert report.missing == ['blocks.0.gamma']
    assert report.unexpected == ['ema_decay']
    assert caplog.records[-1].levelname == 'WARNING'
    assert 'missing: blocks.0.gamma' in caplog.records[-1].getMessage()


def test_shapes_that_do_not_fit_are_missing(official, tmp_path):
    name = 'blocks.1.attn.qkv_pos.2.weight'
    torch.save({**official, name: torch.ones(64, 1, 5, 5)}, tmp_path / 'x.pth')
    model = PatchConvNet(ARCH)
    before = model.blocks[1].dwconv.weight.detach().clone()
    report = load_pretrained(model, tmp_path / 'x.pth')
    assert report.missing == ['blocks.1.dwconv.weight']
    assert '(64x1x5x5 in the file, 64x1x3x3 here)' in str(report)
    assert torch.equal(model.blocks[1].dwconv.weight, before)


def test_one_by_one_convolutions_fit_linear_layers(official, tmp_path):
    flat = {k: v.flatten(1) if v.shape[2:] == (1, 1) else v for k, v in official.items()}
    assert any(v.dim() == 2 and k.startswith('blocks.0.attn') for k, v in flat.items())
    torch.save(flat, tmp_path / 'x.pth')
    model = PatchConvNet(ARCH)
    assert load_pretrained(model, tmp_path / 'x.pth').clean
    assert_loaded(model, official)


class Resizing(PatchConvNet):
    """Cuts larger depthwise kernels down to the centre."""

    def adapt_parameter(self, name, value):
        return value[..., 1:-1, 1:-1] if name.endswith('dwconv.weight') else None


def test_the_model_resizes_what_it_can(official, tmp_path):
    large = {k: nn.functional.pad(v, (1, 1, 1, 1)) if v.shape[1:] == (1, 3, 3) else v
             for k, v in official.items()}  # fmt: skip
    torch.save(large, tmp_path / 'x.pth')
    model = Resizing(ARCH)
    report = load_pretrained(model, tmp_path / 'x.pth')
    assert report.clean
    assert report.resized == [f'blocks.{i}.dwconv.weight' for i in range(4)]
    assert 'resized: blocks.0.dwconv.weight' in str(report)
    assert_loaded(model, official)


class Normed(PatchConvNet):
    """Has norms on its outputs, which no published file has."""

    def __init__(self, arch):
        super().__init__(arch)
        self.out_norms = nn.ModuleDict({'3': nn.LayerNorm(100_000)})


def test_norms_added_for_dense_prediction_do_not_count(official_file):
    report = load_pretrained(Normed(ARCH), official_file)
    assert report.clean
    assert report.fresh == ['out_norms.3.weight', 'out_norms.3.bias']
    assert '2 new in this package' in str(report)


def test_attention_pooling_of_a_resnet_does_not_count(tmp_path):
    weights = AttnResNet('resnet18').state_dict()
    torch.save(weights | {'fc.weight': torch.ones(9, 512)}, tmp_path / 'resnet18.pth')
    model = AttnResNet('resnet18', pooling=True)
    report = load_pretrained(model, tmp_path / 'resnet18.pth')
    assert report.clean and report.leftovers == ['fc.weight']
    assert {name.partition('.')[0] for name in report.fresh} == {'pool', 'pool_norm'}
    # A checkpoint that has some of it is not one without it.
    torch.save(weights | {'pool_norm.weight': torch.ones(512)}, tmp_path / 'part.pth')
    with pytest.raises(CheckpointMismatch):
        load_pretrained(model, tmp_path / 'part.pth')


@pytest.mark.parametrize('backbone', ['PatchConvNet', 'MetaFormer', 'CoAtNet', 'AttnResNet'])
def test_weights_of_a_deployed_model_are_refused_by_others(backbone, tmp_path):
    trained = MODELS.build(dict(type=backbone, arch='nano')).eval()
    deployed = MODELS.build(dict(type=backbone, arch='nano'))
    deployed.switch_to_deploy()
    torch.save(deployed.state_dict(), tmp_path / 'deployed.pth')
    torch.save(trained.state_dict(), tmp_path / 'trained.pth')
    for model, name in ((trained, 'deployed'), (deployed, 'trained')):
        before = {n: v.clone() for n, v in model.state_dict().items()}
        weights = torch.load(tmp_path / f'{name}.pth', weights_only=True)
        with pytest.raises(CheckpointMismatch, match='switch_to_deploy'):
            model.load_state_dict(weights, strict=False)
        with pytest.raises(CheckpointMismatch, match='switch_to_deploy'):
            load_pretrained(model, tmp_path / f'{name}.pth')
        for n, value in model.state_dict().items():
            assert torch.equal(value, before[n])
    again = MODELS.build(dict(type=backbone, arch='nano'))
    again.switch_to_deploy()
    again.load_state_dict(deployed.state_dict())
    assert load_pretrained(again, tmp_path / 'deployed.pth').clean


def test_batch_norm_counters_may_be_absent(tmp_path):
    trained = PatchConvNet(ARCH, norm_cfg=dict(type='BN'))
    nn.init.uniform_(trained.blocks[0].norm.running_mean)
    weights = trained.state_dict()
    kept = {k: v for k, v in weights.items() if not k.endswith('num_batches_tracked')}
    assert len(kept) == len(weights) - 4
    torch.save(kept, tmp_path / 'x.pth')
    model = PatchConvNet(ARCH, norm_cfg=dict(type='BN'))
    assert load_pretrained(model, tmp_path / 'x.pth').clean
    assert torch.equal(model.blocks[0].norm.running_mean, trained.blocks[0].norm.running_mean)


@pytest.mark.parametrize('share, fits', [(0.88, False), (0.92, True)])
def test_nine_tenths_of_the_parameters_are_needed(share, fits, tmp_path):
    weights = PatchConvNet(ARCH).state_dict()
    total = sum(value.numel() for value in weights.values())
    chosen, taken = {}, 0
    for name, value in sorted(weights.items(), key=lambda item: -item[1].numel()):
        if taken + value.numel() <= share * total:
            chosen[name] = value
            taken += value.numel()
    assert abs(taken / total - share) < 0.01
    torch.save(chosen, tmp_path / 'x.pth')
    model = PatchConvNet(ARCH)
    if fits:
        report = load_pretrained(model, tmp_path / 'x.pth')
        assert set(report.missing) == set(weights) - set(chosen)
        return
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointMismatch, match=f'has only {taken / total:.1%}'):
        load_pretrained(model, tmp_path / 'x.pth')
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_another_size_raises_with_the_shapes(official_file):
    with pytest.raises(CheckpointMismatch, match='perhaps of another arch') as info:
        load_pretrained(PatchConvNet(dict(width=32, depth=4)), official_file)
    assert 'blocks.0.gamma (64 in the file, 32 here)' in str(info.value)


@pytest.mark.parametrize(
    'fixture, family',
    [('resnet50', 'AttnResNet'), ('coatnet_small_paper', 'CoAtNet'),
     ('poolformer_tiny', 'MetaFormer'), ('deepvit_small_reattn', 'DeepViT')],
)  # fmt: skip
def test_another_architecture_raises_and_is_named(fixture, family, tmp_path):
    torch.save(official_state_dict(load_golden(fixture)), tmp_path / 'other.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'other.pth'))
    with pytest.raises(CheckpointMismatch, match=r'other\.pth .* of this PatchConvNet') as info:
        PatchConvNet(ARCH, init_cfg=init_cfg).init_weights()
    assert f"type='attnpool_backbones.{family}'" in str(info.value)


def test_an_unknown_architecture_raises_with_names_of_both_sides(tmp_path):
    torch.save({'features.0.weight': torch.ones(3)}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointMismatch, match='no family this package knows') as info:
        load_pretrained(PatchConvNet(ARCH), tmp_path / 'x.pth')
    assert 'in the file: features.0.weight' in str(info.value)
    assert 'in the model: stem.0.weight' in str(info.value)


@pytest.mark.parametrize(
    'wrapper', ['module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module']
)
def test_wrappers_inside_of_names_are_dropped(wrapper, official, tmp_path):
    weights = {k.replace('blocks.1.', f'blocks.1.{wrapper}.'): v for k, v in official.items()}
    torch.save({f'{wrapper}.{wrapper}.{k}': v for k, v in weights.items()}, tmp_path / 'x.pth')
    model = PatchConvNet(ARCH)
    assert load_pretrained(model, tmp_path / 'x.pth').clean
    assert_loaded(model, official)


def test_the_same_name_behind_a_wrapper_has_to_hold_the_same(official, tmp_path):
    name = 'blocks.0.gamma_1'
    torch.save({**official, f'module.{name}': official[name]}, tmp_path / 'x.pth')
    load_pretrained(PatchConvNet(ARCH), tmp_path / 'x.pth')
    torch.save({**official, f'module.{name}': official[name] + 1}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=rf'x\.pth.*{name}, module\.{name}.*different'):
        load_pretrained(PatchConvNet(ARCH), tmp_path / 'x.pth')


@pytest.mark.parametrize('prefix', ['model.', 'net.encoder.', 'model.backbone.', 'model.module.'])
def test_a_common_prefix_is_found(prefix, official, tmp_path):
    weights = {f'{prefix}{k}': v for k, v in official.items()}
    torch.save({'state_dict': {**weights, 'loss.weight': torch.ones(2)}}, tmp_path / 'x.ckpt')
    model = PatchConvNet(ARCH)
    load_pretrained(model, tmp_path / 'x.ckpt')
    assert_loaded(model, official)


def test_of_two_backbones_one_has_to_be_chosen(official, tmp_path):
    weights = {f'{who}.{k}': v for who in ('teacher', 'student') for k, v in official.items()}
    torch.save(weights, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError) as info:
        load_pretrained(PatchConvNet(ARCH), tmp_path / 'x.pth')
    for prefix in ('teacher.', 'student.'):
        assert f"init_cfg=dict(prefix='{prefix}')" in str(info.value)


@pytest.mark.parametrize('wrapper', ['', 'module.', 'module.backbone.'])
def test_weights_of_several_models_under_their_own_keys(wrapper, official, tmp_path):
    teacher = {f'{wrapper}{k}': v for k, v in official.items()}
    student = {k: torch.zeros_like(v) for k, v in teacher.items()}
    training = {'optimizer': {'state': {0: {'step': torch.ones(1)}}, 'param_groups': []}}
    file = {'student': student, 'teacher': teacher, **training, 'epoch': 3}
    torch.save(file, tmp_path / 'x.pth')
    prefix = 'teacher.backbone' if wrapper.endswith('backbone.') else 'teacher'
    with pytest.raises(CheckpointError) as info:
        load_pretrained(PatchConvNet(ARCH), tmp_path / 'x.pth')
    assert f"init_cfg=dict(prefix='{prefix}.')" in str(info.value)
    model = PatchConvNet(ARCH)
    assert load_pretrained(model, tmp_path / 'x.pth', prefix=prefix).clean
    assert_loaded(model, official)
    del file['student']
    torch.save(file, tmp_path / 'alone.pth')
    model = PatchConvNet(ARCH)
    assert load_pretrained(model, tmp_path / 'alone.pth').clean
    assert_loaded(model, official)


def test_norms_have_their_statistics_or_the_file_is_refused(tmp_path):
    arch = dict(depths=(1, 1, 1, 1), widths=(16, 16, 16, 16))
    weights = {n: v + 1 for n, v in AttnResNet(arch).named_parameters()}  # as of GroupNorm
    torch.save(weights, tmp_path / 'x.pth')
    model = AttnResNet(arch)
    before = model.conv1.weight.detach().clone()
    with pytest.raises(CheckpointMismatch, match=r'statistics.*\n.*bn1.running_mean.* more'):
        load_pretrained(model, tmp_path / 'x.pth')
    assert torch.equal(model.conv1.weight, before)
    report = load_pretrained(model, tmp_path / 'x.pth', partly=True)
    assert 'bn1.running_var' in report.missing
    assert torch.equal(model.conv1.weight, weights['conv1.weight'])


SE = dict(depths=(1, 1, 1, 1), widths=(16, 16, 16, 16), attention='se')


def se_weights(reduce, expand):
    weights = AttnResNet(SE).state_dict()
    return {k.replace('se.reduce', reduce).replace('se.expand', expand): v + 1
            for k, v in weights.items()}  # fmt: skip


@pytest.mark.parametrize('names', [('se.fc1', 'se.fc2'), ('se.fc.0', 'se.fc.2')])
def test_gates_of_other_origin_load(names, tmp_path):
    """Timm's and PytorchInsight's SE-ResNets."""
    weights = se_weights(*names)
    torch.save(weights, tmp_path / 'x.pth')
    model = AttnResNet(SE)
    assert load_pretrained(model, tmp_path / 'x.pth').clean
    assert torch.equal(model.layer2[0].se.reduce.weight, weights[f'layer2.0.{names[0]}.weight'])


def test_layers_do_not_stay_random_beside_their_weights(tmp_path):
    """Gates are so small that nine tenths of the parameters fit without them."""
    torch.save(se_weights('gate.squeeze', 'gate.excite'), tmp_path / 'x.pth')
    model = AttnResNet(SE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointMismatch) as info:
        load_pretrained(model, tmp_path / 'x.pth')
    for part in ('16 parameters', 'layer1.0.se.reduce.weight', 'layer1.0.gate.squeeze.weight',
                 'partly=True'):  # fmt: skip
        assert part in str(info.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    report = load_pretrained(model, tmp_path / 'x.pth', partly=True)
    assert len(report.missing) == len(report.unexpected) == 16


@pytest.mark.parametrize(
    ('value', 'fault'),
    [(torch.nan, 'NaN'), (torch.inf, 'infinite'), (1, 'integers'), (True, 'bool'), (1j, 'complex')],
)
def test_parameters_have_to_be_finite_numbers(value, fault, official, tmp_path):
    name = 'blocks.2.gamma_1'
    bad = official[name].to(torch.tensor(value).dtype).fill_(value)
    torch.save({**official, name: bad}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=rf'x\.pth.*{fault}.*blocks\.2\.gamma'):
        load_pretrained(PatchConvNet(ARCH), tmp_path / 'x.pth')
