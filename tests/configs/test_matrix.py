"""Every config is in the matrix and is what the matrix says."""

from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal

import pytest
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from attnpool_backbones.backbones.base import DenseBackbone
from attnpool_backbones.zoo.config_models import build_config_model
from attnpool_backbones.zoo.model_matrix import COMBINATIONS, KINDS, Combination, Recipe
from tests.configs.test_configs import CONFIGS, ROOT

GPUS = 8
NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)
DETECTORS = {
    'retinanet': 'RetinaNet',
    'faster-rcnn': 'FasterRCNN',
    'mask-rcnn': 'MaskRCNN',
    'cascade-rcnn': 'CascadeRCNN',
    'cascade-mask-rcnn': 'CascadeRCNN',
}
HEADS = {'upernet': 'UPerHead', 'semantic-fpn': 'FPNHead'}


def check_schedule(cfg: Config, recipe: Recipe):
    *warm_up, fall = (dict(part) for part in cfg.param_scheduler)
    begin, factor = recipe.warm_up or (0, None)
    linear = dict(type='LinearLR', start_factor=factor, by_epoch=False, begin=0, end=begin)
    assert warm_up == ([linear] if recipe.warm_up else [])
    epochs, iterations = (cfg.train_cfg.get(f'max_{unit}') for unit in ('epochs', 'iters'))
    assert fall.pop('end') == (epochs or iterations)
    # a fall that is counted in epochs begins in the first one
    assert (fall.pop('begin'), fall.pop('by_epoch')) == ((0, True) if epochs else (begin, False))
    if recipe.milestones:
        expected = dict(type='MultiStepLR', milestones=list(recipe.milestones), gamma=0.1)
    elif recipe.power:
        expected = dict(type='PolyLR', power=recipe.power, eta_min=recipe.eta_min)
    else:
        expected = dict(type='CosineAnnealingLR')
        expected |= dict(convert_to_iter_based=True) if epochs else {}
    assert fall == expected


def check_recipe(cfg: Config, combination: Combination):
    recipe = combination.recipe
    optimizer = dict(cfg.optim_wrapper.optimizer)
    key = 'momentum' if recipe.optimizer == 'SGD' else 'betas'
    # AdamW's own betas need not be spelt out
    momentum = optimizer.pop(key, Recipe.momentum)
    assert momentum == recipe.momentum
    assert optimizer == dict(type=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay)
    wrapper = cfg.optim_wrapper
    assert wrapper.type == ('AmpOptimWrapper' if recipe.amp else 'OptimWrapper')
    assert wrapper.get('loss_scale') == ('dynamic' if recipe.amp else None)
    assert wrapper.get('clip_grad', {}).get('max_norm') == recipe.clip
    check_schedule(cfg, recipe)
    if recipe.data == 'digit-scenes':
        assert cfg.train_dataloader.batch_size == recipe.batch
        return
    assert cfg.train_dataloader.batch_size * GPUS == recipe.batch
    assert cfg.auto_scale_lr.base_batch_size == recipe.batch
    assert cfg.train_cfg.get('max_epochs') == recipe.epochs
    assert cfg.train_cfg.get('max_iters') == recipe.iterations


def check_head(cfg: Config, combination: Combination):
    assert cfg.default_scope == ('mmseg' if combination.segments else 'mmdet')
    if combination.segments:
        assert cfg.model.decode_head.type == HEADS[combination.head]
        return
    assert cfg.model.type == DETECTORS[combination.head]
    masks = 'mask' in combination.head
    assert bool(cfg.model.get('roi_head', {}).get('mask_head')) == masks
    metrics = cfg.val_evaluator.metric
    assert cfg.test_evaluator == cfg.val_evaluator
    assert ('segm' in ([metrics] if isinstance(metrics, str) else metrics)) == masks
    loads = [step for step in cfg.train_dataloader.dataset.pipeline if 'with_bbox' in step]
    assert [step.get('with_mask', False) for step in loads] == [masks]


def frozen_prefixes(backbone, stages: int) -> list[str]:
    if isinstance(backbone, DenseBackbone):
        return [prefix for part in backbone.stage_prefixes()[: stages + 1] for prefix in part]
    # mmdet's ResNet; its SwinTransformer is never frozen here
    return ['conv1', 'bn1', *(f'layer{s + 1}' for s in range(stages))] if stages >= 0 else []


def check_frozen(backbone, stages: int):
    prefixes = tuple(f'{prefix}.' for prefix in frozen_prefixes(backbone, stages))
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in backbone.named_parameters() if name.startswith(prefixes)}
    assert bool(frozen) == (stages >= 0)


def check_drop_path(backbone, combination: Combination):
    rates = [m.drop_prob for m in backbone.modules() if type(m).__name__ == 'DropPath']
    last, constant = combination.drop_path, combination.drop_path_schedule == 'constant'
    if constant or not last:
        assert set(rates) <= {last} and (rates or not last)
        return
    # a block may have several branches; without a rate it may have no layer
    steps = sorted({0.0, *rates})
    expected = [last * k / (len(steps) - 1) for k in range(len(steps))]
    assert rates == sorted(rates) and steps == pytest.approx(expected) and len(steps) > 2


def check_pretraining(cfg: Config, combination: Combination):
    init = cfg.model.backbone.get('init_cfg') or {}
    checkpoint = init.get('checkpoint')
    assert (checkpoint is not None) == (init.get('type') == 'Pretrained')
    assert (checkpoint and checkpoint.rpartition('/')[2]) == combination.checkpoint


def check_backbone(backbone, combination: Combination):
    check_frozen(backbone, combination.frozen_stages)
    check_drop_path(backbone, combination)
    assert getattr(backbone, 'norm_eval', False) == combination.norm_eval
    checkpoints = getattr(backbone, 'with_cp', None)
    if checkpoints is not None:
        assert checkpoints == combination.with_cp


def groups_of(model, cfg: Config) -> list[dict]:
    """Returns the optimizer's groups; the optimizer itself takes long to build from many."""
    wrapper = dict(cfg.optim_wrapper)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type=wrapper.pop('constructor', 'DefaultOptimWrapperConstructor'),
            paramwise_cfg=wrapper.pop('paramwise_cfg', None),
            optim_wrapper_cfg=wrapper,
        )
    )
    groups = []
    constructor.add_params(groups, model)
    defaults = {key: wrapper['optimizer'][key] for key in ('lr', 'weight_decay')}
    return [{**defaults, **group} for group in groups]


def spared_parameters(model, no_decay: tuple[str, ...]):
    """Yields what should have no weight decay."""
    names = [part for part in no_decay if part not in KINDS]
    for prefix, layer in model.named_modules():
        for name, parameter in layer.named_parameters(recurse=False):
            of_norm = isinstance(layer, NORMS)
            kinds = (of_norm, name == 'bias' and not of_norm, parameter.ndim <= 1)
            spared = {kind for kind, holds in zip(KINDS, kinds, strict=True) if holds}
            if spared & set(no_decay) or any(part in f'{prefix}.{name}' for part in names):
                yield parameter


def check_rates(model, cfg: Config, combination: Combination):
    recipe = combination.recipe
    groups = groups_of(model, cfg)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for g in groups for p in g['params']} == trained
    assert {g['weight_decay'] for g in groups} <= {0.0, recipe.weight_decay}
    spared = {id(p) for g in groups if g['weight_decay'] == 0 for p in g['params']}
    assert spared == trained & {id(p) for p in spared_parameters(model, recipe.no_decay)}
    rates = {g['lr'] for g in groups}
    if recipe.decay_rate is None:
        assert rates == {recipe.lr}
        return
    layers = len(model.backbone.layer_prefixes())
    expected = [recipe.lr * recipe.decay_rate**k for k in range(layers + 1)]
    assert sorted(rates, reverse=True) == pytest.approx(expected)
    in_heads = {id(p) for n, p in model.named_parameters() if not n.startswith('backbone.')}
    assert {g['lr'] for g in groups for p in g['params'] if id(p) in in_heads} == {recipe.lr}


def check_parameters(model, combination: Combination):
    if combination.params is not None:
        counted = sum(
            p.numel() for p in model.parameters() if p.requires_grad or combination.params_frozen
        )
        digits = len(combination.params.partition('.')[2])
        millions = (Decimal(counted) / 10**6).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
        assert str(millions) == combination.params


@pytest.mark.parametrize('combination', COMBINATIONS, ids=lambda c: c.config[:-3])
def test_config_is_as_stated(combination):
    cfg = Config.fromfile(ROOT / combination.config)
    check_recipe(cfg, combination)
    check_head(cfg, combination)
    check_pretraining(cfg, combination)
    model = build_config_model(cfg, device='meta')
    check_backbone(model.backbone, combination)
    check_rates(model, cfg, combination)
    check_parameters(model, combination)


def test_every_config_is_in_the_matrix():
    stated = [combination.config for combination in COMBINATIONS]
    assert len(set(stated)) == len(stated)
    assert sorted(stated) == sorted(str(path.relative_to(ROOT)) for path in CONFIGS)


WRONG_RECIPES = (
    dict(optimizer='SGD'), dict(lr=1.0), dict(weight_decay=1.0), dict(momentum=(0.9, 0.95)),
    dict(warm_up=(500, 0.1)), dict(warm_up=(50, 0.001)), dict(warm_up=None), dict(milestones=(1,)),
    dict(milestones=(), power=1.0), dict(batch=8), dict(clip=1.0), dict(amp=False),
)  # fmt: skip
WRONG_BACKBONES = (
    dict(drop_path=0.9), dict(drop_path_schedule='linear'), dict(frozen_stages=1),
    dict(norm_eval=True), dict(with_cp=True),
)  # fmt: skip


def test_a_wrong_statement_is_noticed():
    stated = next(c for c in COMBINATIONS if c.params and c.recipe.amp)
    cfg = Config.fromfile(ROOT / stated.config)
    check_recipe(cfg, stated)
    for wrong in WRONG_RECIPES:
        with pytest.raises(AssertionError):
            check_recipe(cfg, replace(stated, recipe=replace(stated.recipe, **wrong)))
    with pytest.raises(AssertionError):
        check_pretraining(cfg, replace(stated, checkpoint='b60_224_1k.pth'))
    model = build_config_model(cfg, device='meta')
    for wrong in WRONG_BACKBONES:
        with pytest.raises(AssertionError):
            check_backbone(model.backbone, replace(stated, **wrong))
    for wrong in (dict(no_decay=()), dict(no_decay=('norm', 'bias')), dict(decay_rate=0.9)):
        with pytest.raises(AssertionError):
            check_rates(model, cfg, replace(stated, recipe=replace(stated.recipe, **wrong)))
    with pytest.raises(AssertionError):
        check_parameters(model, replace(stated, params='1.0'))
