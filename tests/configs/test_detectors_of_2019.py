"""Detectors of the SGE tables have the settings of the mmdetection they were published with."""

import pytest
from mmengine.config import Config

from tests.configs.test_configs import CONFIGS, ROOT

SGE_RECIPES = [config for config in CONFIGS if config.schedule in ('2x', '20e')]
STAGES = [((0.1, 0.2), 0.5), ((0.05, 0.1), 0.6), ((0.033, 0.067), 0.7)]
"""Deviations of centre and size that a stage divides its targets by, and its overlap with
objects."""
FPN_INPUTS = {True: [512, 1024, 2048], False: [256, 512, 1024, 2048]}
THRESHOLDS = ('pos_iou_thr', 'neg_iou_thr', 'min_pos_iou', 'match_low_quality')
SAMPLING = ('num', 'pos_fraction', 'neg_pos_ub', 'add_gt_as_proposals')


def values(settings: dict, keys: tuple[str, ...]) -> tuple:
    return tuple(settings[key] for key in keys)


def smooth_l1(head: dict) -> float:
    assert (head.loss_bbox.type, head.loss_bbox.loss_weight) == ('SmoothL1Loss', 1.0)
    return head.loss_bbox.beta


def check_data(cfg: Config, masks: bool) -> None:
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.mean == [123.675, 116.28, 103.53]
    assert preprocessor.std == [58.395, 57.12, 57.375]
    assert (preprocessor.bgr_to_rgb, preprocessor.pad_size_divisor) == (True, 32)
    assert preprocessor.get('pad_mask', False) == masks
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        (resize,) = (step for step in loader.dataset.pipeline if step.type == 'Resize')
        assert (resize.scale, resize.keep_ratio) == ((1333, 800), True)
    flips = [step.prob for step in cfg.train_dataloader.dataset.pipeline if 'Flip' in step.type]
    assert flips == [0.5]
    assert cfg.train_dataloader.dataset.filter_cfg == dict(filter_empty_gt=True, min_size=32)


def check_retinanet(model: Config) -> None:
    assert (model.neck.num_outs, model.neck.add_extra_convs) == (5, 'on_input')
    head = model.bbox_head
    anchors = head.anchor_generator
    assert (anchors.octave_base_scale, anchors.scales_per_octave) == (4, 3)
    assert (anchors.ratios, anchors.strides) == ([0.5, 1.0, 2.0], [8, 16, 32, 64, 128])
    assert (head.stacked_convs, head.feat_channels) == (4, 256)
    assert (head.loss_cls.type, head.loss_cls.gamma, head.loss_cls.alpha) == ('FocalLoss', 2, 0.25)
    assert smooth_l1(head) == 0.11
    assert values(model.train_cfg.assigner, THRESHOLDS[:3]) == (0.5, 0.4, 0)
    # without the key it is true
    assert model.train_cfg.assigner.get('match_low_quality', True)
    assert model.train_cfg.allowed_border == -1
    assert values(model.test_cfg, ('nms_pre', 'min_bbox_size', 'score_thr')) == (1000, 0, 0.05)
    assert model.test_cfg.nms == dict(type='nms', iou_threshold=0.5)


def check_rpn(model: Config) -> None:
    anchors = model.rpn_head.anchor_generator
    assert (anchors.scales, anchors.ratios) == ([8], [0.5, 1.0, 2.0])
    assert anchors.strides == [4, 8, 16, 32, 64]
    assert model.rpn_head.loss_cls.use_sigmoid and smooth_l1(model.rpn_head) == 1 / 9
    settings = model.train_cfg.rpn
    assert values(settings.assigner, THRESHOLDS) == (0.7, 0.3, 0.3, True)
    assert values(settings.sampler, SAMPLING) == (256, 0.5, -1, False)
    assert settings.allowed_border == 0
    # training had no settings of its own for proposals
    proposals = dict(
        nms_pre=2000, max_per_img=2000, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0
    )
    assert model.train_cfg.rpn_proposal == model.test_cfg.rpn == proposals


def check_regions(model: Config, cascade: bool, masks: bool) -> None:
    heads, stages = model.roi_head.bbox_head, model.train_cfg.rcnn
    if not cascade:
        heads, stages = [heads], [stages]
    else:
        assert model.roi_head.num_stages == len(STAGES)
        assert model.roi_head.stage_loss_weights == [1, 0.5, 0.25]
    expected = STAGES if cascade else STAGES[:1]
    for head, stage, ((centre, size), iou) in zip(heads, stages, expected, strict=True):
        assert head.bbox_coder.target_stds == [centre, centre, size, size]
        assert head.reg_class_agnostic == cascade and smooth_l1(head) == 1.0
        assert values(stage.assigner, THRESHOLDS) == (iou, iou, iou, True)
        assert values(stage.sampler, SAMPLING) == (512, 0.25, -1, True)
        assert stage.mask_size == 28
    for part, bins in (('bbox', 7), ('mask', 14))[: 1 + masks]:
        extractor = model.roi_head[f'{part}_roi_extractor']
        assert extractor.roi_layer == dict(type='RoIAlign', output_size=bins, sampling_ratio=2)
        assert extractor.featmap_strides == [4, 8, 16, 32]
    test = model.test_cfg.rcnn
    assert (test.score_thr, test.nms) == (0.05, dict(type='nms', iou_threshold=0.5))


@pytest.mark.parametrize('config', SGE_RECIPES, ids=lambda config: config.path[:-3])
def test_settings(config):
    cfg = Config.fromfile(ROOT / config.path)
    model, head = cfg.model, config.head
    check_data(cfg, 'mask' in head)
    dense = head == 'retinanet'
    assert (model.neck.in_channels, model.neck.out_channels) == (FPN_INPUTS[dense], 256)
    assert (model.test_cfg if dense else model.test_cfg.rcnn).max_per_img == 100
    if dense:
        check_retinanet(model)
        return
    assert model.neck.num_outs == 5
    check_rpn(model)
    check_regions(model, 'cascade' in head, 'mask' in head)


@pytest.mark.parametrize('part', ['heads', 'stages'])
def test_a_missing_stage_is_noticed(part):
    config = next(config for config in SGE_RECIPES if config.head == 'cascade-rcnn')
    model = Config.fromfile(ROOT / config.path).model
    check_regions(model, cascade=True, masks=False)
    (model.roi_head.bbox_head if part == 'heads' else model.train_cfg.rcnn).pop()
    with pytest.raises(ValueError, match=r'zip\(\)'):
        check_regions(model, cascade=True, masks=False)
