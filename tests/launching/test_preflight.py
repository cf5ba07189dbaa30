"""Everything that is wrong is named in one message, before anything is built or written."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from attnpool_backbones.checkpoints.errors import CheckpointError
from attnpool_backbones.command_line import UserError
from attnpool_backbones.launching.preflight import check_everything
from attnpool_backbones.launching.run_plan import RunPlan
from attnpool_backbones.launching.targets import require_target_folder


def plan(folder: Path, load_from: Path | None = None, ann_file: str = '') -> RunPlan:
    dataset = dict(type='CocoDataset', data_root=str(folder), ann_file=ann_file)
    cfg = Config(
        dict(
            default_scope='mmdet',
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            launcher='none',
            load_from=load_from and str(load_from),
            train_dataloader=dict(dataset=dataset),
        )
    )
    return RunPlan(
        cfg,
        splits=('train', 'val'),
        starts=True,
        checkpoint_option='load_from',
        whole_model=False,
        folders={'--work-dir': str(folder / 'work')},
    )


def test_a_whole_run_passes(tmp_path):
    torch.save(dict(state_dict=dict(a=torch.zeros(2))), tmp_path / 'start.pth')
    run = plan(tmp_path, tmp_path / 'start.pth')
    check_everything(run)
    assert run.stored_shapes == dict(a=torch.Size([2]))
    assert (tmp_path / 'work').is_dir()


def test_all_that_is_wrong_is_named_at_once(tmp_path):
    run = plan(tmp_path, tmp_path / 'start.pth', 'missing.json')
    run.cfg.model = dict(init_cfg=dict(type='Pretrained', checkpoint='weights.pth'))
    with pytest.raises(UserError) as caught:
        check_everything(run)
    message = str(caught.value)
    for part in ('missing.json', 'weights.pth', 'load_from: checkpoint not found'):
        assert message.count(part) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('scope', ['', 'mmdet.'])
@pytest.mark.parametrize('backbone', ['attnpool_backbones.CoAtNet', 'mmpretrain.ConvNeXt'])
def test_layers_have_to_be_known_to_who_makes_their_rates_fall(backbone, scope, tmp_path):
    run = plan(tmp_path)
    run.cfg.model = dict(backbone=dict(type=backbone))
    run.cfg.optim_wrapper.constructor = f'{scope}LearningRateDecayOptimizerConstructor'
    if backbone.endswith('ConvNeXt'):
        check_everything(run)
        return
    with pytest.raises(UserError, match='layers of CoAtNet; use .*LayerDecayOptimWrapperC'):
        check_everything(run)


def test_somebody_elses_layer_decay_of_that_name_knows_its_layers(tmp_path):
    run = plan(tmp_path)
    run.cfg.model = dict(backbone=dict(type='ViT'))
    run.cfg.optim_wrapper.constructor = 'LayerDecayOptimizerConstructor'

    class LayerDecayOptimizerConstructor:  # that of mmdet's project ViTDet
        pass

    OPTIM_WRAPPER_CONSTRUCTORS.register_module(module=LayerDecayOptimizerConstructor)
    try:
        check_everything(run)
    finally:
        OPTIM_WRAPPER_CONSTRUCTORS.module_dict.pop('LayerDecayOptimizerConstructor')


def test_one_thing_keeps_its_kind(tmp_path):
    (tmp_path / 'start.pth').write_text('Not Found')
    with pytest.raises(CheckpointError, match='start.pth is no checkpoint'):
        check_everything(plan(tmp_path, tmp_path / 'start.pth'))


def test_targets_come_last(tmp_path):
    (tmp_path / 'work').touch()
    with pytest.raises(UserError) as caught:
        check_everything(plan(tmp_path, ann_file='missing.json'))
    assert '--work-dir' not in str(caught.value)
    with pytest.raises(UserError, match='--work-dir .*work: is a file'):
        check_everything(plan(tmp_path))


@pytest.mark.parametrize('below', ['', 'run'])
def test_a_link_to_a_disk_that_is_not_mounted(below, tmp_path):
    (tmp_path / 'link').symlink_to('/nowhere/disk')
    with pytest.raises(UserError, match='link is a link to /nowhere/disk, which is not there'):
        require_target_folder('--work-dir', str(tmp_path / 'link' / below))
