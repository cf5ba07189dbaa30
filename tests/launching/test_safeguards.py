"""Configs of others get the loops and hooks with which nothing is lost."""

from datetime import timedelta

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.runner import EpochBasedTrainLoop

from attnpool_backbones.command_line import UserError
from attnpool_backbones.launching import devices
from attnpool_backbones.launching.devices import join_group
from attnpool_backbones.launching.safeguards import add_safeguards

INFINITE = dict(sampler=dict(type='InfiniteSampler'))

# train_cfg and train_dataloader of a config -> the loop's type
LOOPS = {
    'by text': (dict(type='EpochBasedTrainLoop', max_epochs=2), {}, 'ResumableEpochBased'),
    'by scoped text': (dict(type='mmengine.EpochBasedTrainLoop'), {}, 'ResumableEpochBased'),
    'by class': (dict(type=EpochBasedTrainLoop), {}, 'ResumableEpochBased'),
    'by_epoch': (dict(by_epoch=True, max_epochs=2), {}, 'ResumableEpochBased'),
    'both': (dict(type='EpochBasedTrainLoop', by_epoch=True), {}, 'ResumableEpochBased'),
    'both by iterations': (dict(type='IterBasedTrainLoop', by_epoch=False), {}, 'IterBased'),
    'by iterations': (dict(type='IterBasedTrainLoop'), INFINITE, 'ResumableIterBased'),
    'not by_epoch': (dict(by_epoch=False), INFINITE, 'ResumableIterBased'),
    'other sampler': (dict(type='IterBasedTrainLoop'), {}, 'IterBased'),
    'batch sampler': (
        dict(type='IterBasedTrainLoop'),
        dict(INFINITE, batch_sampler=dict(type='AspectRatioBatchSampler')),
        'IterBased',
    ),
    'of somebody else': (dict(type='GANLoop'), {}, 'GANLoop'),
}


@pytest.mark.parametrize('name', LOOPS)
def test_loops(name):
    loop, loader, expected = LOOPS[name]
    cfg = Config(dict(train_cfg=loop, train_dataloader=loader))
    for _ in range(2):  # the second time changes nothing
        add_safeguards(cfg)
        found = cfg.train_cfg.type.removeprefix('attnpool_backbones.')
        assert found.removesuffix('TrainLoop') == expected
        assert 'by_epoch' not in cfg.train_cfg
        assert [hook.type.rpartition('.')[2] for hook in cfg.custom_hooks] == [
            'ResumeCheckHook',
            'WorkFolderHook',
            'InvalidLossHook',
            'RandomStateHook',
            'SharedBuffersHook',
        ]


@pytest.mark.parametrize('kind', ['EarlyStoppingHook', EarlyStoppingHook])
def test_early_stopping(kind):
    cfg = Config(dict(custom_hooks=[dict(type=kind, monitor='a', patience=3)]))
    add_safeguards(cfg)
    assert cfg.custom_hooks[0].type == 'attnpool_backbones.ResumableEarlyStoppingHook'
    assert cfg.custom_hooks[0].patience == 3


AVERAGES = [dict(type='EMAHook', momentum=0.1), dict(type='mmengine.EMAHook', momentum=0.2)]


@pytest.mark.parametrize(
    'hooks',
    [
        dict(custom_hooks=AVERAGES),
        dict(custom_hooks=AVERAGES[:1], default_hooks=dict(average=AVERAGES[1])),
    ],
)
def test_two_averages_are_refused(hooks):
    """After a validation, one of them would be what is trained on."""
    with pytest.raises(UserError, match='2 hooks of type EMAHook') as caught:
        add_safeguards(Config(hooks))
    assert all(str(average) in str(caught.value) for average in AVERAGES)


@pytest.mark.parametrize('kind', [None, 'CheckpointHook', CheckpointHook])
def test_saving(kind):
    hooks = {} if kind is None else dict(checkpoint=dict(type=kind, interval=3))
    cfg = Config(dict(default_hooks=hooks, custom_hooks=[dict(type='x.InvalidLossHook')]))
    add_safeguards(cfg, every='10m', wait_for_space=True)
    hook = cfg.default_hooks.checkpoint
    assert hook.type == 'attnpool_backbones.SafeCheckpointHook'
    assert (hook.every, hook.wait_for_space) == ('10m', True)
    assert hook.get('interval') == (None if kind is None else 3)
    assert [hook.type for hook in cfg.custom_hooks].count('x.InvalidLossHook') == 1
    assert len(cfg.custom_hooks) == 5
    assert [hook.get('wait_for_space') for hook in cfg.custom_hooks].count(True) == 1


def test_processes_wait_for_the_one_that_waits_for_space(monkeypatch):
    """Their group would end them after half an hour."""
    cfg = Config(dict(launcher='pytorch', env_cfg=dict(dist_cfg=dict(backend='nccl'))))
    add_safeguards(cfg)
    assert 'timeout' not in cfg.env_cfg.dist_cfg
    add_safeguards(cfg, wait_for_space=True)
    joined = []
    monkeypatch.setattr(devices, 'require_launcher', lambda cfg: None)
    monkeypatch.setattr(devices, 'end_with_parent', lambda: None)
    monkeypatch.setattr(devices.torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(
        devices.torch.distributed, 'init_process_group', lambda *_, timeout: joined.append(timeout)
    )
    monkeypatch.setenv('LOCAL_RANK', '0')
    join_group(cfg)
    assert joined == [timedelta(days=30)]
    own = Config(dict(env_cfg=dict(dist_cfg=dict(timeout=60))))
    add_safeguards(own, wait_for_space=True)
    assert own.env_cfg.dist_cfg.timeout == 60


def test_wishes_of_other_hooks():
    cfg = Config(dict(default_hooks=dict(checkpoint=dict(type='OtherHook'))))
    add_safeguards(cfg)
    assert cfg.default_hooks.checkpoint == dict(type='OtherHook')
    with pytest.raises(UserError, match='--checkpoint-every needs default_hooks.checkpoint'):
        add_safeguards(cfg, every='10m')
    with pytest.raises(UserError, match='--wait-for-space needs'):
        add_safeguards(cfg, wait_for_space=True)


@pytest.mark.parametrize('every', ['', '0', '-1m', '10 minutes', 'often', '1e3', '5x'])
def test_wrong_durations(every):
    with pytest.raises(UserError, match='--checkpoint-every .* is no duration'):
        add_safeguards(Config(dict()), every=every)
