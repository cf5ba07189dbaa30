"""``--tta`` wraps the model and the pipeline."""

import pytest
from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.launching.tta import enable_tta


def test_tta_of_segmentation_needs_a_pipeline():
    cfg = Config(
        dict(
            default_scope='mmseg',
            model=dict(type='EncoderDecoder'),
            test_dataloader=dict(dataset=dict(pipeline=[])),
        )
    )
    with pytest.raises(UserError, match='no tta_pipeline'):
        enable_tta(cfg)
    cfg.tta_pipeline = [dict(type='TestTimeAug')]
    enable_tta(cfg)
    assert cfg.model.type == 'attnpool_backbones.SemanticTTAModel'
    assert cfg.model.module.type == 'EncoderDecoder'
    assert cfg.test_dataloader.dataset.pipeline == [dict(type='TestTimeAug')]


def test_tta_of_detection_flips_by_default():
    pytest.importorskip('mmdet')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs', meta_keys=('img_id',))]
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(type='MaskRCNN'),
            test_dataloader=dict(
                dataset=dict(type='RepeatDataset', dataset=dict(pipeline=pipeline))
            ),
        )
    )
    enable_tta(cfg)
    load, augment = cfg.test_dataloader.dataset.dataset.pipeline
    flips, (packing,) = augment.transforms
    assert load.type == 'LoadImageFromFile' and [flip.prob for flip in flips] == [0.0, 1.0]
    assert 'flip_direction' in packing.meta_keys
    assert cfg.model.type == 'attnpool_backbones.InstanceTTAModel'


def test_a_config_of_pure_python_can_be_written(tmp_path):
    (tmp_path / 'lazy.py').write_text(
        'from mmengine.model import BaseTTAModel\n'
        "default_scope = 'mmseg'\n"
        "model = dict(type='EncoderDecoder')\n"
        'tta_model = dict(type=BaseTTAModel)\n'
        'tta_pipeline = []\n'
        'test_dataloader = dict(dataset=dict(pipeline=[]))\n'
    )
    cfg = Config.fromfile(tmp_path / 'lazy.py')
    enable_tta(cfg)
    assert cfg.model.module.type == 'EncoderDecoder'
    assert 'BaseTTAModel' in cfg.pretty_text
