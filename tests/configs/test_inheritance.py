"""Configs as people use them: of an installed wheel, as a base of their own, kept from before."""

import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

from attnpool_backbones.config_files import config_root
from attnpool_backbones.launching.config_models import build_config_model

NAMES = (
    'poolformer/retinanet_poolformer-s24_fpn_1x_coco.py',
    'deepvit/mask-rcnn_deepvit-l_fpn_ms-3x_coco.py',
    'patchconvnet/upernet_patchconvnet-b60_8xb2-160k_ade20k-512x512.py',
    'baselines/cascade-rcnn_resnet101_fpn_20e_coco.py',
)
"""Of each kind of backbone and head one."""
NANO = 'mask-rcnn_deepvit-nano_slim-fpn_digit-scenes.py'


@pytest.mark.parametrize('name', NAMES, ids=lambda name: Path(name).stem)
def test_a_project_inherits_by_path_and_changes_what_it_likes(name, tmp_path):
    # where a wheel has them
    installed = tmp_path / 'site-packages' / 'attnpool_backbones' / 'configs'
    shutil.copytree(config_root(), installed)
    mine = tmp_path / 'project' / 'mine.py'
    mine.parent.mkdir()
    mine.write_text(
        f"_base_ = '{installed / name}'\n"
        'model = dict(backbone=dict(drop_path_rate=0.5, with_cp=True))\n'
        "work_dir = f'work_dirs/{_base_.optim_wrapper.optimizer.type}'\n"
    )
    expected = Config.fromfile(config_root() / name)
    assert not {'under', 'backbone', 'channels', 'pyramid', 'pixels'} & set(expected)
    expected.model.backbone.update(drop_path_rate=0.5, with_cp=True)
    expected.work_dir = f'work_dirs/{expected.optim_wrapper.optimizer.type}'
    cfg = Config.fromfile(mine)
    assert cfg.to_dict() == expected.to_dict()
    # what a Runner leaves in its work_dir
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == expected.to_dict()


def test_a_config_that_was_dumped_before_still_makes_the_same_model(repo_root):
    """The file was dumped by the commit before backbones had files of their own."""
    kept = Config.fromfile(repo_root / 'tests' / 'data' / 'before' / NANO)
    today = Config.fromfile(config_root() / 'deepvit' / NANO)
    shapes = [
        {name: value.shape for name, value in build_config_model(cfg, 'meta').state_dict().items()}
        for cfg in (kept, today)
    ]
    assert shapes[0] == shapes[1] and len(shapes[0]) > 100
