"""Wrong configs end in one message that names the key, before anything is trained."""

from pathlib import Path

import pytest
from mmengine.config import Config

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.config_keys import require_known_keys
from attnpool_backbones.mmcv_operators.model_trial import shipped
from tests.launching.tiny_scenes import run_training, write_config

LOADING = "dict(type='LoadImageFromFile')"
PIPELINE = 'train_dataloader = dict(dataset=dict(pipeline=[{}]))'
# lines of the config -> parts of the message
DETECTION = {
    # keys that mmengine would ignore, or that a constructor would refuse
    'trian_cfg = dict(max_epochs=3)': ['trian_cfg', 'did you mean train_cfg'],
    'model = dict(bakbone=dict(arch=1))': ['model.bakbone of MaskRCNN', 'backbone'],
    'model = dict(rpn_head=dict(feat_channel=3))': ['model.rpn_head.feat_channel', 'feat_channels'],
    'model = dict(rpn_head=dict(loss_cls=dict(loss_wight=2)))': ['loss_wight', 'loss_weight'],
    'optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mul=0))': ['norm_decay_mult'],
    'train_cfg = dict(max_epoch=3)': ['train_cfg.max_epoch', 'max_epochs'],
    "default_hooks = dict(chekpoint=dict(type='CheckpointHook'))": ['did you mean checkpoint'],
    PIPELINE.format(LOADING + ", dict(type='LoadAnnotations', with_bbx=True)"): [
        'train_dataloader.dataset.pipeline[1].with_bbx',
        'with_bbox',
    ],
    "train_dataloader = dict(dataset=dict(anno_file='x'))": ['dataset.anno_file', 'ann_file'],
    "param_scheduler = [dict(type='LinearLR', start_facto=0.1)]": ['[0].start_facto', 'factor?'],
    # types
    "model = dict(type='MaskRCN')": ["model.type='MaskRCN'", 'MaskRCNN'],
    "model = dict(backbone=dict(type='attnpool_backbones.MetaFormr'))": [
        'model.backbone',
        'did you mean MetaFormer',
    ],
    "optim_wrapper = dict(optimizer=dict(type='AdamWW'))": ['optim_wrapper.optimizer', 'AdamW'],
    "train_cfg = dict(type='EpochBasedTrainLop')": ['train_cfg.type', 'EpochBasedTrainLoop'],
    "custom_hooks = [dict(type='EMAHok')]": ['custom_hooks[0].type', 'EMAHook'],
    "train_dataloader = dict(sampler=dict(type='DefaultSamplr'))": ['DefaultSampler'],
    PIPELINE.format("dict(type='LoadImageFromFil')"): ['pipeline[0].type', 'LoadImageFromFile'],
    "train_dataloader = dict(dataset=dict(type='CocoDatset'))": ['dataset.type', 'CocoDataset'],
    "val_evaluator = dict(type='CocoMetrics')": ['val_evaluator.type', 'CocoMetric'],
    "param_scheduler = [dict(type='LinearLRR')]": ['param_scheduler[0].type', 'LinearLR'],
    "model = dict(train_cfg=dict(rpn=dict(assigner=dict(type='MaxIoUAssignr'))))": [
        'model.train_cfg.rpn.assigner.type',
        'MaxIoUAssigner',
    ],
    # values: sentences of constructors, with the key
    "model = dict(backbone=dict(arch='nanoo'))": ['model.backbone', "no arch 'nanoo'"],
    'model = dict(backbone=dict(out_indices=(1, 9)))': ['model.backbone', 'lie in 0..3'],
    'model = dict(backbone=dict(frozen_stages=99))': ['model.backbone', 'frozen_stages=99'],
    'model = dict(backbone=dict(drop_path_rate=2.0))': ['model.backbone', 'rate=2.0'],
    'model = dict(data_preprocessor=dict(mean=[1, 2]))': ['model.data_preprocessor', '2 values'],
    'optim_wrapper = dict(optimizer=dict(lr=-1.0))': ['optim_wrapper.optimizer', '-1.0'],
    "optim_wrapper = dict(optimizer=dict(lr='a'))": ['optim_wrapper.optimizer', 'TypeError'],
    "train_cfg = dict(max_epochs='a')": ['train_cfg', "'a'"],
    'train_cfg = dict(max_epochs=0)': ['train_cfg.max_epochs is 0'],
    'train_dataloader = dict(batch_size=0)': ['train_dataloader', 'batch_size=0'],
    'train_dataloader = dict(num_workers=-1)': ['dataloader.num_workers', '0 to 1024, not -1'],
    "val_evaluator = dict(metric='bbbox')": ['val_evaluator', 'bbbox'],
    # parts that do not fit together
    'model = dict(neck=dict(in_channels=[64, 64]))': ['model.neck.lateral_convs[1]', '128'],
    'model = dict(neck=dict(in_channels=[64]))': ['model.neck', 'len(inputs) == len'],
    'model = dict(neck=dict(out_channels=32))': ['model.rpn_head', '32 channels at stride 8'],
    'model = dict(roi_head=dict(bbox_head=dict(in_channels=7)))': ['bbox_head.shared_fcs[0]'],
    # of the losses alone, and with batches as mmdet's configs have them
    "train_dataloader = dict(batch_sampler=dict(type='AspectRatioBatchSampler'))\n"
    'model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(class_weight=[1.0, 2.0]))))': [
        'model.roi_head.bbox_head.loss_cls',
        'should be defined',
    ],
    'model = dict(rpn_head=dict(anchor_generator=dict(strides=[4, 8])))': [
        'anchor_generator.strides is [4, 8]',
        '[8, 16]',
    ],
    'model = dict(roi_head=dict(bbox_roi_extractor=dict(featmap_strides=[4, 8])))': [
        'bbox_roi_extractor.featmap_strides is [4, 8]',
        '[8, 16]',
    ],
    'model = dict(roi_head=dict(bbox_head=dict(num_classes=5), mask_head=dict(num_classes=80)))': [
        'has 10 classes (zero, one',
        'model.roi_head.bbox_head.num_classes is 5',
        'model.roi_head.mask_head.num_classes is 80',
    ],
    'val_cfg = None': ['without val_cfg'],
    'optim_wrapper = None': ['without optim_wrapper'],
    # data
    'train_dataloader = dict(batch_size=50, drop_last=True)': ['5 images make no batch of 50'],
    "train_dataloader = dict(dataset=dict(metainfo=dict(classes=('whale'))))": ["('whale',)"],
    "val_dataloader = dict(dataset=dict(metainfo=dict(classes=('zero', 'one'))))": [
        'other classes than in train'
    ],
    "train_dataloader = dict(dataset=dict(metainfo=dict(classes=('Zero',))))": [
        'no such category',
        "'zero'",
        'nothing left to train on',
    ],
    'train_dataloader = dict(dataset=dict(filter_cfg=dict(min_size=1000)))': [
        'nothing left to train on',
        '5 below min_size=1000',
    ],
}  # fmt: skip
SEGMENTATION = {
    'model = dict(decode_head=dict(in_index=[0, 7]))': ['does not fit together', '2 maps'],
    'model = dict(decode_head=dict(in_channels=[64, 99]))': ['model.decode_head', '128 channels'],
    'model = dict(decode_head=dict(num_classes=5))': ['decode_head.num_classes is 5', '11 classes'],
    'model = dict(decode_head=dict(loss_decode=dict(class_weight=[1.0] * 3)))': [
        'model.decode_head.loss_decode',
        'weight',
    ],
    'train_dataloader = dict(batch_size=1)': ['batch_size is 1', 'model.decode_head.psp_modules'],
    "train_dataloader = dict(dataset=dict(img_suffix='.jpeg'))": ['no images', '.jpeg'],
    "val_evaluator = dict(iou_metric=['mIoU'])": ['val_evaluator.iou_metric', 'iou_metrics'],
    "val_evaluator = dict(iou_metrics=['mIou'])": ["'mIou'", 'mDice'],
}
CASES = [('det', *case) for case in DETECTION.items()] + [
    ('seg', *case) for case in SEGMENTATION.items()
]


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digit_scenes'
    generate(root, train=5, val=2, size=64)
    return root


@pytest.mark.parametrize(('task', 'lines', 'parts'), CASES, ids=[case[1] for case in CASES])
def test_message(task: str, lines: str, parts: list[str], scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run_training(write_config(tmp_path, task, scenes, lines))
    for part in parts:
        assert part in str(caught.value)
    assert not list(tmp_path.rglob('*.pth'))


@pytest.mark.parametrize('step', [9, pytest.param(1, marks=pytest.mark.slow)])
def test_own_configs_have_known_keys(step: int) -> None:
    configs = [p for p in sorted(config_root().glob('*/*.py')) if '_base_' not in p.parts]
    assert len(configs) > 150
    # at least one of each family: all of them take a minute
    for path in configs[::step]:
        require_known_keys(load_config(str(path)))


@pytest.mark.parametrize(
    'config',
    [
        'mmdet/detr/detr_r50_8xb2-150e_coco.py',  # the head takes a key out of its loss
        'mmdet/fpg/faster-rcnn_r50_fpg_crop640-50e_coco.py',  # the neck names layers itself
        'mmdet/gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py',  # conv_cfg
        'mmdet/grounding_dino/dod/grounding_dino_swin-t_pretrain_zeroshot_concat_dod.py',
        'mmdet/solov2/solov2-light_r50-dcn_fpn_ms-3x_coco.py',  # an old name of deform_groups
        'mmseg/maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py',
    ],
)
def test_keys_that_others_read_are_known(config: str) -> None:
    library, _, path = config.partition('/')
    require_known_keys(load_config(str(shipped(library) / 'configs' / path)))


@pytest.mark.parametrize(
    ('lines', 'wrong'),
    [
        ('model = dict(bbox_head=dict(loss_cls=dict(loss_wight=2.0)))', 'loss_wight'),
        ('test_dataloder = _base_.val_dataloader', 'test_dataloder'),
        ("model = dict(neck=dict(norm_cfg=dict(type='GNN')))", "'GNN'"),
    ],
)
def test_they_do_not_hide_what_is_misspelt(lines: str, wrong: str, tmp_path: Path) -> None:
    base = shipped('mmdet') / 'configs/detr/detr_r50_8xb2-150e_coco.py'
    path = tmp_path / 'config.py'
    path.write_text(f'_base_ = {str(base)!r}\n{lines}\n')
    with pytest.raises(UserError, match=wrong):
        require_known_keys(load_config(str(path)))


def test_imports_of_a_config_of_pure_python_are_no_keys() -> None:
    from mmengine.optim import OptimWrapper

    require_known_keys(Config(dict(default_scope='mmdet', OptimWrapper=OptimWrapper)))
