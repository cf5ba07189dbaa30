"""Every config is in the matrix and is what the matrix says."""

from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal

import pytest
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from attnpool_backbones.analysis.config_models import build_config_model
from attnpool_backbones.analysis.model_matrix import COMBINATIONS, Combination
from attnpool_backbones.backbones.base import DenseBackbone
from tests.configs.test_configs import CONFIGS, ROOT

GPUS = 8
DETECTORS = {
    'retinanet': 'RetinaNet',
    'faster-rcnn': 'FasterRCNN',
    'mask-rcnn': 'MaskRCNN',
    'cascade-rcnn': 'CascadeRCNN',
    'cascade-mask-rcnn': 'CascadeRCNN',
}
HEADS = {'upernet': 'UPerHead', 'semantic-fpn': 'FPNHead'}


def check_recipe(cfg: Config, combination: Combination):
    recipe = combination.recipe
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == (recipe.optimizer, recipe.lr)
    assert optimizer.weight_decay == recipe.weight_decay
    wrapper = cfg.optim_wrapper
    assert wrapper.type == ('AmpOptimWrapper' if recipe.amp else 'OptimWrapper')
    assert wrapper.get('loss_scale') == ('dynamic' if recipe.amp else None)
    assert wrapper.get('clip_grad', {}).get('max_norm') == recipe.clip
    if recipe.data == 'digit-scenes':
        assert cfg.train_dataloader.batch_size == recipe.batch
        return
    assert cfg.train_dataloader.batch_size * GPUS == recipe.batch
    assert cfg.auto_scale_lr.base_batch_size == recipe.batch
    assert cfg.train_cfg.get('max_epochs') == recipe.epochs
    assert cfg.train_cfg.get('max_iters') == recipe.iterations
    schedule = cfg.param_scheduler[-1]
    assert schedule.end == (recipe.epochs or recipe.iterations)
    assert tuple(schedule.get('milestones', ())) == recipe.milestones


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


def check_backbone(backbone, combination: Combination):
    check_frozen(backbone, combination.frozen_stages)
    rates = [m.drop_prob for m in backbone.modules() if type(m).__name__ == 'DropPath']
    assert max(rates, default=0.0) == pytest.approx(combination.drop_path)
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


def check_rates(model, cfg: Config, combination: Combination):
    recipe = combination.recipe
    groups = groups_of(model, cfg)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for g in groups for p in g['params']} == trained
    assert {g['weight_decay'] for g in groups} <= {0.0, recipe.weight_decay}
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
    model = build_config_model(cfg, device='meta')
    check_backbone(model.backbone, combination)
    check_rates(model, cfg, combination)
    check_parameters(model, combination)


def test_every_config_is_in_the_matrix():
    stated = [combination.config for combination in COMBINATIONS]
    assert len(set(stated)) == len(stated)
    assert sorted(stated) == sorted(str(path.relative_to(ROOT)) for path in CONFIGS)


def test_a_wrong_statement_is_noticed():
    stated = next(c for c in COMBINATIONS if c.params)
    cfg = Config.fromfile(ROOT / stated.config)
    with pytest.raises(AssertionError):
        check_recipe(cfg, replace(stated, recipe=replace(stated.recipe, lr=1.0)))
    model = build_config_model(cfg, device='meta')
    for wrong in (dict(drop_path=0.9), dict(frozen_stages=1), dict(norm_eval=True)):
        with pytest.raises(AssertionError):
            check_backbone(model.backbone, replace(stated, **wrong))
    with pytest.raises(AssertionError):
        check_parameters(model, replace(stated, params='1.0'))
