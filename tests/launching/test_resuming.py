"""``--resume`` and a config that says it find the checkpoint and its seed."""

import pytest
import torch
from mmengine.config import Config

from attnpool_backbones.checkpoints.door import open_door
from attnpool_backbones.command_line import UserError
from attnpool_backbones.launching.resuming import choose_checkpoint_to_resume
from tests.engine.tiny_run import make_config, make_runner


def test_resume(tmp_path):
    open_door()
    cfg = make_config(tmp_path, seed=None)
    choose_checkpoint_to_resume(cfg, 'auto')
    assert cfg.resume is False and cfg.get('load_from') is None
    runner = make_runner('launch', cfg)
    runner.train()
    choose_checkpoint_to_resume(cfg, 'auto')
    assert cfg.resume is True and cfg.load_from == str(tmp_path / 'epoch_4.pth')
    assert cfg.randomness.seed == runner.seed
    cfg = make_config(tmp_path, seed=5)
    choose_checkpoint_to_resume(cfg, str(tmp_path / 'epoch_1.pth'))
    assert cfg.load_from.endswith('epoch_1.pth') and cfg.randomness.seed == 5
    with pytest.raises(UserError, match='that folder has: epoch_1.pth, epoch_2.pth'):
        choose_checkpoint_to_resume(cfg, str(tmp_path / 'epoch_9.pth'))
    torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
    with pytest.raises(UserError, match='only weights'):
        choose_checkpoint_to_resume(cfg, str(tmp_path / 'weights.pth'))


def test_resume_of_a_config(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path), resume=True, load_from=None))
    choose_checkpoint_to_resume(cfg, None)
    assert cfg.resume is False and cfg.load_from is None  # the work folder is empty
    make_runner('config', make_config(tmp_path / 'there')).train()
    address = f'file://{tmp_path}/there/epoch_2.pth'
    cfg = Config(dict(work_dir=str(tmp_path), resume=True, load_from=address))
    choose_checkpoint_to_resume(cfg, None)
    assert cfg.resume is True and cfg.load_from == address
    cfg.load_from = str(tmp_path / 'named.pth')
    with pytest.raises(UserError, match='checkpoint not found: .*named.pth'):
        choose_checkpoint_to_resume(cfg, None)
    cfg.resume = False  # the same weights as a start only
    choose_checkpoint_to_resume(cfg, None)
    assert cfg.load_from == str(tmp_path / 'named.pth')


def test_resume_of_an_address(tmp_path):
    """It is looked at as a file is: its seed goes on, and weights alone are refused."""
    runner = make_runner('address', make_config(tmp_path, seed=None))
    runner.train()
    cfg = make_config(tmp_path / 'other', seed=None)
    address = f'file://{tmp_path}/epoch_1.pth'
    choose_checkpoint_to_resume(cfg, address)
    assert cfg.load_from == address and cfg.randomness.seed == runner.seed
    torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
    with pytest.raises(UserError, match='cannot resume from file://.*only weights'):
        choose_checkpoint_to_resume(cfg, f'file://{tmp_path}/weights.pth')
