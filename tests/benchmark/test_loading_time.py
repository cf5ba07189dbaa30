"""An image of a config's data set is loaded without the data set."""

import pytest

from attnpool_backbones.benchmark.loading_time import loading_seconds
from attnpool_backbones.launching.config import load_config

CONFIGS = (
    'configs/attn_resnet/mask-rcnn_sge-resnet50_fpn_2x_coco.py',
    'configs/attn_resnet/upernet_sge-resnet50_8xb2-160k_ade20k-512x512.py',
)


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize('config', CONFIGS)
def test_both_pipelines_run(config, train):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    assert 0 < loading_seconds(load_config(config), train, images=1) < 60
