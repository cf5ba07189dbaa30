"""Every config is what its row of ``recipes.csv`` says, and every config has a row."""

from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal

import pytest
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from attnpool_backbones.backbones.base import DenseBackbone
from attnpool_backbones.datasets.records import DIGIT_SCENES
from attnpool_backbones.launching.config_models import build_config_model
from tests.configs.recipes import KINDS, RECIPES, Recipe, read_recipe
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
    assert (epochs, iterations) == (recipe.epochs, recipe.iterations)
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


def check_recipe(cfg: Config, recipe: Recipe):
    optimizer = dict(cfg.optim_wrapper.optimizer)
    key = 'momentum' if recipe.optimizer == 'SGD' else 'betas'
    # AdamW's own betas need not be spelt out
    momentum = optimizer.pop(key, (0.9, 0.999))
    assert momentum == recipe.momentum
    assert optimizer == dict(type=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay)
    wrapper = cfg.optim_wrapper
    assert wrapper.type == ('AmpOptimWrapper' if recipe.mixed_precision else 'OptimWrapper')
    assert wrapper.get('loss_scale') == ('dynamic' if recipe.mixed_precision else None)
    assert wrapper.get('clip_grad', {}).get('max_norm') == recipe.clip
    check_schedule(cfg, recipe)
    if recipe.config.data_set == DIGIT_SCENES:
        assert cfg.train_dataloader.batch_size == recipe.batch
        return
    assert cfg.train_dataloader.batch_size * GPUS == recipe.batch
    assert cfg.auto_scale_lr.base_batch_size == recipe.batch


def check_head(cfg: Config, recipe: Recipe):
    assert cfg.default_scope == ('mmseg' if recipe.config.segments else 'mmdet')
    if recipe.config.segments:
        assert cfg.model.decode_head.type == HEADS[recipe.config.head]
        return
    assert cfg.model.type == DETECTORS[recipe.config.head]
    masks = 'mask' in recipe.config.head
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


def check_drop_path(backbone, recipe: Recipe):
    rates = [m.drop_prob for m in backbone.modules() if type(m).__name__ == 'DropPath']
    last, constant = recipe.drop_path, recipe.constant_drop_path
    if constant or not last:
        assert set(rates) <= {last} and (rates or not last)
        return
    # a block may have several branches; without a rate it may have no layer
    steps = sorted({0.0, *rates})
    expected = [last * k / (len(steps) - 1) for k in range(len(steps))]
    assert rates == sorted(rates) and steps == pytest.approx(expected) and len(steps) > 2


def check_pretraining(cfg: Config, recipe: Recipe):
    init = cfg.model.backbone.get('init_cfg') or {}
    checkpoint = init.get('checkpoint')
    assert (checkpoint is not None) == (init.get('type') == 'Pretrained')
    assert (checkpoint and checkpoint.rpartition('/')[2]) == recipe.weights


def check_backbone(backbone, recipe: Recipe):
    check_frozen(backbone, recipe.frozen_stages)
    check_drop_path(backbone, recipe)
    assert getattr(backbone, 'norm_eval', False) == recipe.norm_eval
    checkpoints = getattr(backbone, 'with_cp', None)
    if checkpoints is not None:
        assert checkpoints == recipe.with_cp


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


def check_rates(model, cfg: Config, recipe: Recipe):
    groups = groups_of(model, cfg)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for g in groups for p in g['params']} == trained
    assert {g['weight_decay'] for g in groups} <= {0.0, recipe.weight_decay}
    spared = {id(p) for g in groups if g['weight_decay'] == 0 for p in g['params']}
    assert spared == trained & {id(p) for p in spared_parameters(model, recipe.no_decay)}
    rates = {g['lr'] for g in groups}
    if recipe.layer_decay is None:
        assert rates == {recipe.lr}
        return
    layers = len(model.backbone.layer_prefixes())
    expected = [recipe.lr * recipe.layer_decay**k for k in range(layers + 1)]
    assert sorted(rates, reverse=True) == pytest.approx(expected)
    in_heads = {id(p) for n, p in model.named_parameters() if not n.startswith('backbone.')}
    assert {g['lr'] for g in groups for p in g['params'] if id(p) in in_heads} == {recipe.lr}


def check_parameters(model, recipe: Recipe):
    if recipe.params is not None:
        counted = sum(
            p.numel() for p in model.parameters() if p.requires_grad or recipe.counts_frozen
        )
        digits = len(recipe.params.partition('.')[2])
        millions = (Decimal(counted) / 10**6).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
        assert str(millions) == recipe.params


@pytest.mark.parametrize('recipe', RECIPES, ids=lambda recipe: recipe.config.path[:-3])
def test_config_is_as_stated(recipe):
    cfg = Config.fromfile(ROOT / recipe.config.path)
    check_recipe(cfg, recipe)
    check_head(cfg, recipe)
    check_pretraining(cfg, recipe)
    model = build_config_model(cfg, device='meta')
    check_backbone(model.backbone, recipe)
    check_rates(model, cfg, recipe)
    check_parameters(model, recipe)


def test_every_config_has_a_row():
    stated = [recipe.config for recipe in RECIPES]
    assert len(set(stated)) == len(stated)
    assert sorted(config.path for config in stated) == sorted(config.path for config in CONFIGS)


def test_a_cell_that_says_nothing_is_refused():
    row = dict.fromkeys(
        ('no_decay', 'warm_up', 'clip', 'layer_decay', 'drop_path', 'weights', 'params'), ''
    )
    row |= dict(config='a/b', length='12 epochs', momentum='0.9', fall='slowly')
    with pytest.raises(ValueError, match="a/b falls by 'slowly'"):
        read_recipe(row)


WRONG_RECIPES = (
    dict(optimizer='SGD'), dict(lr=1.0), dict(weight_decay=1.0), dict(momentum=(0.9, 0.95)),
    dict(warm_up=(500, 0.1)), dict(warm_up=(50, 0.001)), dict(warm_up=None), dict(milestones=(1,)),
    dict(milestones=(), power=1.0), dict(batch=8), dict(clip=1.0), dict(mixed_precision=False),
    dict(epochs=12),
)  # fmt: skip
WRONG_BACKBONES = (
    dict(drop_path=0.9), dict(constant_drop_path=False), dict(frozen_stages=1),
    dict(norm_eval=True), dict(with_cp=True),
)  # fmt: skip


def test_a_wrong_statement_is_noticed():
    stated = next(recipe for recipe in RECIPES if recipe.params and recipe.mixed_precision)
    cfg = Config.fromfile(ROOT / stated.config.path)
    check_recipe(cfg, stated)
    for wrong in WRONG_RECIPES:
        with pytest.raises(AssertionError):
            check_recipe(cfg, replace(stated, **wrong))
    with pytest.raises(AssertionError):
        check_pretraining(cfg, replace(stated, weights='b60_224_1k.pth'))
    model = build_config_model(cfg, device='meta')
    for wrong in WRONG_BACKBONES:
        with pytest.raises(AssertionError):
            check_backbone(model.backbone, replace(stated, **wrong))
    for wrong in (dict(no_decay=()), dict(no_decay=('norm', 'bias')), dict(layer_decay=0.9)):
        with pytest.raises(AssertionError):
            check_rates(model, cfg, replace(stated, **wrong))
    with pytest.raises(AssertionError):
        check_parameters(model, replace(stated, params='1.0'))
