"""Models whose heads need more than most are not called wrong, and are still checked."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from attnpool_backbones.command_line import UserError
from attnpool_backbones.launching import model_check
from attnpool_backbones.launching.model_check import require_classes, require_fitting_parts
from attnpool_backbones.mmcv_operators.model_trial import shipped

BACKBONE = dict(
    type='attnpool_backbones.AttnResNet', arch=dict(depths=(1, 1, 1, 1), attention='sge')
)
"""Of the channels of a ResNet-50, which the configs are for."""
CONFIGS = {
    'deformable-detr': 'mmdet/deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'dino': 'mmdet/dino/dino-4scale_r50_8xb2-12e_coco.py',
    'vfnet': 'mmdet/vfnet/vfnet_r50_fpn_1x_coco.py',
    'reppoints': 'mmdet/reppoints/reppoints-moment_r50_fpn_1x_coco.py',
    'rtmdet': 'mmdet/rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'centernet': 'mmdet/centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    'panoptic-fpn': 'mmdet/panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
    'htc': 'mmdet/htc/htc_r50_fpn_1x_coco.py',
    'scnet': 'mmdet/scnet/scnet_r50_fpn_1x_coco.py',
    'ssd300': 'mmdet/ssd/ssd300_coco.py',
    'ssdlite': 'mmdet/ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
    'yolact': 'mmdet/yolact/yolact_r50_1xb8-55e_coco.py',
    'sparse-rcnn': 'mmdet/sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
    'soft-teacher': 'mmdet/soft_teacher/'
    'soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
    'mask2former': 'mmdet/mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
    'knet': 'mmseg/knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
    'pointrend': 'mmseg/point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py',
    'maskformer-seg': 'mmseg/maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py',
    'mask2former-seg': 'mmseg/mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
    'stdc': 'mmseg/stdc/stdc1_4xb12-80k_cityscapes-512x1024.py',
}
"""Model -> config of its library."""
UNTRIED = {'soft-teacher': ['losses'], 'ssd300': ['prediction'], 'ssdlite': ['prediction']}
"""Model -> what cannot be tried: several branches need their data, mmdet's SSD predicts nothing."""
OWN_BACKBONES = ('stdc', 'rtmdet', 'ssd300', 'ssdlite')
"""Models that take edges, channels or sizes of these alone."""
FAST = (
    'deformable-detr', 'vfnet', 'rtmdet', 'centernet', 'panoptic-fpn', 'ssd300', 'ssdlite',
    'yolact', 'knet', 'pointrend',
)  # fmt: skip


def of_speed(*names: str) -> list:
    return [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in names or CONFIGS
    ]


def make_config(name: str) -> Config:
    """The config of a model on a small backbone of ours, with one layer of each transformer."""
    library, _, path = CONFIGS[name].partition('/')
    cfg = Config.fromfile(shipped(library) / 'configs' / path)
    cfg.default_scope = library
    model = cfg.model.get('detector', cfg.model)
    if name not in OWN_BACKBONES:
        indices = model.backbone.get('out_indices', (0, 1, 2, 3))
        model.backbone = dict(BACKBONE, out_indices=indices)
    model.backbone.pop('init_cfg', None)  # a download
    cfg.model.pop('pretrained', None)
    if name == 'centernet':
        cfg.model.neck.in_channels = 2048
    make_shallow(cfg.model)
    return cfg


def make_shallow(entry: dict) -> None:
    for value in entry.values():
        if isinstance(value, dict):
            if 'layer_cfg' in value:
                value.num_layers = 1
            make_shallow(value)


def build(cfg: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(copy.deepcopy(cfg.model))
        model.init_weights()  # some have none before
    return model


@pytest.fixture
def notes(monkeypatch) -> list[str]:
    found = []
    monkeypatch.setattr(model_check, 'print_log', lambda text, *_: found.append(text))
    return found


@pytest.mark.parametrize('name', of_speed())
def test_right_models_pass(name, notes):
    cfg = make_config(name)
    model = build(cfg)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        require_fitting_parts(model, cfg, 2)
    assert [note.split()[2] for note in notes] == UNTRIED.get(name, []), notes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes


# what does not fit in a model of those -> the layer that says so, or its words
MISFITS = {
    'deformable-detr': (
        lambda model: model.neck.update(out_channels=128),
        'view size',
    ),
    'vfnet': (lambda model: model.bbox_head.update(in_channels=99), 'model.bbox_head.cls_convs[0]'),
    'centernet': (lambda model: model.bbox_head.update(in_channels=99), 'model.bbox_head'),
    'panoptic-fpn': (
        lambda model: model.semantic_head.update(in_channels=99),
        'model.semantic_head.conv_upsample_layers',
    ),
    'knet': (  # of the losses alone
        lambda model: model.auxiliary_head.update(in_channels=99),
        'model.auxiliary_head.convs[0]',
    ),
    'pointrend': (
        lambda model: model.decode_head[1].update(in_channels=[99]),
        'model.decode_head[1].fcs[0]',
    ),
    'sparse-rcnn': (  # which torch asserts
        lambda model: model.rpn_head.update(proposal_feature_channel=128),
        'model.roi_head.bbox_head[0].attention.attn',
    ),
}


def test_losses_of_semantic_heads_are_tried(notes):
    cfg = make_config('panoptic-fpn')
    cfg.model.semantic_head.loss_seg.class_weight = [1.0, 2.0]
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        pytest.raises(UserError, match=r'at model.semantic_head.loss_seg: '),
    ):
        require_fitting_parts(build(cfg), cfg, 2)


@pytest.mark.parametrize('channels', [32, 33])
def test_models_of_one_size_are_tried_at_it(channels, notes):
    cfg = Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(type='SegDataPreProcessor', size=(96, 128)),
                backbone=dict(  # its bias is a table of all positions
                    type='BEiT', img_size=(96, 128), embed_dims=32, num_layers=1, num_heads=4
                ),
                decode_head=dict(type='FCNHead', in_channels=channels, channels=8, num_classes=5),
                test_cfg=dict(mode='whole'),
            ),
        )
    )
    fails = pytest.raises(UserError, match='image of 96x128 shows: at model.decode_head.convs')
    with DefaultScope.overwrite_default_scope('mmseg'), fails if channels == 33 else nullcontext():
        require_fitting_parts(build(cfg), cfg, 2)
    assert not notes


def segmentor(**changes: object) -> Config:
    """Two heads, the second of which looks at the first one's map (OCRNet), on maps of one size."""
    head = dict(in_channels=256, channels=8, num_classes=5, in_index=2)
    model = dict(
        type='CascadeEncoderDecoder',
        num_stages=2,
        data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
        backbone=dict(type='attnpool_backbones.AttnResNet', arch='resnet_nano'),
        decode_head=[dict(type='FCNHead', **head), dict(type='OCRHead', ocr_channels=8, **head)],
        test_cfg=dict(mode='whole'),
    )
    cfg = Config(dict(default_scope='mmseg', model=model))
    cfg.merge_from_dict(changes)
    return cfg


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({}, ''),
        ({'model.decode_head.1.in_index': 3, 'model.decode_head.1.in_channels': 512},
         r'fit together.*at model.decode_head\[1\].spatial_gather_module'),
        ({'model.data_preprocessor.size': None, 'crop_size': (64, 48)},
         r'neither size nor size_divisor.* size=\(64, 48\)'),
        ({'model.data_preprocessor.size_divisor': 32}, r'both size and .* and size_divisor=None'),
        ({'model.data_preprocessor.size': None, 'model.data_preprocessor.size_divisor': 32}, ''),
    ],
)  # fmt: skip
def test_segmentors_that_cannot_make_a_batch_or_a_map(changes, message, notes):
    cfg = segmentor(**changes)
    fails = pytest.raises(UserError, match=message) if message else nullcontext()
    with DefaultScope.overwrite_default_scope('mmseg'), fails:
        require_fitting_parts(build(cfg), cfg, 2)
    assert not notes
    if 'data_preprocessor' in str(changes):  # which testing does without
        with DefaultScope.overwrite_default_scope('mmseg'):
            require_fitting_parts(build(cfg), cfg)


@pytest.mark.parametrize(
    ('loss', 'is_noted'),
    [
        (dict(type='CrossEntropyLoss', class_weight=[1.0] * 5), True),
        (dict(type='CrossEntropyLoss'), False),
        (dict(type='attnpool_backbones.ClassWeightedCrossEntropyLoss', class_weight=[1.0] * 5),
         False),
    ],
)  # fmt: skip
def test_weights_of_classes_that_end_at_ignored_pixels(loss, is_noted, notes):
    cfg = segmentor(**{'model.decode_head.1.loss_decode': loss})
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = build(cfg)
        require_fitting_parts(model, cfg, 2)
        assert is_noted == any('decode_head[1].loss_decode ends' in note for note in notes)
        labels = torch.full((1, 4, 4), 255)
        labels[:, :2] = 1
        fails = pytest.raises(IndexError) if is_noted else nullcontext()
        with fails:
            model.decode_head[1].loss_decode(torch.zeros(1, 5, 4, 4), labels, ignore_index=255)


@pytest.mark.parametrize('name', of_speed(*MISFITS))
def test_their_misfits_are_found(name, notes):
    cfg = make_config(name)
    change, part = MISFITS[name]
    change(cfg.model)
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        pytest.raises(UserError, match='does not fit together') as caught,
    ):
        require_fitting_parts(build(cfg), cfg, 2)
        pytest.fail(f'only noted: {notes}')
    assert part in str(caught.value)


# ------------------------------------------------------------------ classes


def data_set(classes: int, things: int | None = None) -> SimpleNamespace:
    names = tuple(f'class {number}' for number in range(classes))
    metainfo = dict(classes=names)
    if things is not None:
        metainfo.update(thing_classes=names[:things], stuff_classes=names[things:])
    return SimpleNamespace(metainfo=metainfo)


RIGHT = {
    'panoptic-fpn': data_set(133, 80),
    'htc': data_set(80),
    'scnet': data_set(80),
    'mask2former': data_set(133, 80),
    'stdc': data_set(19),
}


@pytest.mark.parametrize('name', RIGHT)
def test_heads_of_other_classes_than_the_data_are_left_alone(name):
    require_classes(build(make_config(name)), RIGHT[name], 'train')


@pytest.mark.parametrize(
    ('name', 'data', 'parts'),
    [
        ('panoptic-fpn', data_set(133, 79),
         ['roi_head.bbox_head.num_classes is 80, and there are 79 thing_classes',
          'set num_classes=79 there']),
        ('htc', data_set(20), ['roi_head.bbox_head[2].num_classes is 80', 'set num_classes=20']),
        ('stdc', data_set(7), ['model.auxiliary_head[0].num_classes is 19']),
    ],
)  # fmt: skip
def test_heads_of_other_numbers_are_named(name, data, parts):
    with pytest.raises(UserError) as caught:
        require_classes(build(make_config(name)), data, 'train')
    assert all(part in str(caught.value) for part in parts), caught.value
    assert 'semantic_head' not in str(caught.value)


def test_heads_that_read_prompts_have_no_number_of_classes():
    head = nn.Module()
    head.num_classes = head.max_text_len = 256
    require_classes(nn.ModuleDict(dict(bbox_head=head)), data_set(20), 'test')


class Remembers(nn.Module):
    """Keeps a history as Dynamic R-CNN's head: a list that it extends, and puts another one for."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.seen, self.history = 0, [1.0], []

    def forward(self) -> None:
        self.count += 1
        self.seen.append(2.0)
        self.history = [3.0]


def test_a_trial_leaves_no_history():
    module = Remembers()
    seen = module.seen
    with model_check.kept_attributes(nn.Sequential(module)):
        module.eval()
        module()
    assert (module.count, module.seen, module.history, module.training) == (0, [1.0], [], True)
    assert module.seen is seen


@pytest.mark.parametrize(
    ('told', 'width', 'size', 'is_right'),
    [
        (32, 256, 8, True), (64, 256, 8, False), (16, 256, 8, False),
        (256, 256, 1, True), (512, 256, 1, False), (128, 256, 1, False),
        (4, 256, 63, True),  # without padding
        (64, 300, 5, True), (300, 300, 1, True),  # SSD
        (550 / 69, 550, 69, True), (550 / 69, 256, 32, True),  # YOLACT
    ],
)  # fmt: skip
def test_strides_of_maps_that_are_rounded(told, width, size, is_right):
    model = nn.Module()
    model.bbox_head = SimpleNamespace(prior_generator=SimpleNamespace(strides=[told]))
    with nullcontext() if is_right else pytest.raises(UserError, match='strides'):
        model_check.require_strides(model, [size], width)
