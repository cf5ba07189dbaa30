"""A checkpoint with a part of another training is named before anything of it is used."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from attnpool_backbones.checkpoints.reading import read_content
from attnpool_backbones.engine.resumed_parts import WrongPart
from attnpool_backbones.launching.latest_checkpoint import UnusableCheckpoints
from attnpool_backbones.launching.latest_checkpoint import find_resumable_checkpoint as find
from tests.engine.tiny_run import ITERS, make_config, make_runner

HOOK = dict(type='attnpool_backbones.ResumeCheckHook')
EMA = dict(type='EMAHook')


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """Checkpoints of the second epoch, without and with a moving average."""
    found = {}
    for name, hooks in (('plain', (HOOK,)), ('ema', (HOOK, EMA))):
        folder = tmp_path_factory.mktemp(name)
        make_runner('parts', config(folder, hooks)).train()
        found[name] = read_content(str(folder / 'epoch_2.pth'))
    return found


def config(folder: Path, hooks: tuple = (HOOK,), **optimizer: Any):
    cfg = make_config(folder, hooks=hooks)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=ITERS),
        dict(type='MultiStepLR', milestones=[3], by_epoch=True),
    ]
    cfg.optim_wrapper.optimizer.update(optimizer)
    return cfg


def put(*keys: Any, value: Any) -> Callable[[dict], None]:
    def change(checkpoint: dict) -> None:
        for key in keys[:-1]:
            checkpoint = checkpoint[key]
        checkpoint[keys[-1]] = value

    return change


def drop(*keys: Any) -> Callable[[dict], None]:
    def change(checkpoint: dict) -> None:
        for key in keys[:-1]:
            checkpoint = checkpoint[key]
        del checkpoint[keys[-1]]

    return change


def rename(old: str, new: str) -> Callable[[dict], None]:
    def change(checkpoint: dict) -> None:
        checkpoint['state_dict'][new] = checkpoint['state_dict'].pop(old)

    return change


GROUP = ('optimizer', 'param_groups', 0)

# what is changed in a sound checkpoint -> what the message says
FAULTS = {
    'no_meta': (drop('meta'), 'it has no meta'),
    'meta_is_a_list': (put('meta', value=[]), 'its meta is of type list'),
    'no_epoch': (drop('meta', 'epoch'), 'meta.epoch is None'),
    'negative_iter': (put('meta', 'iter', value=-1), 'meta.iter is -1'),
    'iter_is_a_text': (put('meta', 'iter', value='12'), "meta.iter is '12'"),
    'epoch_beyond_the_end': (put('meta', 'epoch', value=9), 'meta.epoch is 9, beyond the end at 4'),
    'seed_is_a_list': (put('meta', 'seed', value=[[]]), r'meta.seed is \[\[\]\]'),
    'seed_is_too_large': (put('meta', 'seed', value=2**40), 'meta.seed is 1099511627776'),
    'no_state_dict': (drop('state_dict'), 'it has no state_dict'),
    'empty_state_dict': (put('state_dict', value={}), 'state_dict has no weights'),
    'text_among_weights': (put('state_dict', 'a', value='b'), 'state_dict has a'),
    'missing_weight': (drop('state_dict', 'layer.bias'), 'lacks layer.bias'),
    'other_weight': (rename('layer.bias', 'head.bias'), 'lacks layer.bias; it has besides head'),
    'additional_weight': (put('state_dict', 'x', value=torch.ones(1)), 'has besides x'),
    'weight_of_other_shape': (
        put('state_dict', 'layer.weight', value=torch.ones(1, 3)),
        r'in other shapes layer.weight \(1x3, here 1x2\)',
    ),
    'no_message_hub': (drop('message_hub'), 'it has no message_hub'),
    'message_hub_is_none': (put('message_hub', value=None), 'message_hub is missing'),
    'no_log_scalars': (drop('message_hub', 'log_scalars'), 'message_hub.log_scalars is missing'),
    'no_runtime_info': (drop('message_hub', 'runtime_info'), 'runtime_info is missing'),
    'no_resumed_keys': (drop('message_hub', 'resumed_keys'), 'resumed_keys is missing'),
    'scalar_without_history': (
        put('message_hub', 'log_scalars', 'train/loss', value=3.0),
        'no histories of train/loss',
    ),
    'no_optimizer': (drop('optimizer'), r'it has no optimizer \(only weights\?\)'),
    'optimizer_without_groups': (drop('optimizer', 'param_groups'), 'no state and param_groups'),
    'optimizer_without_state': (put('optimizer', 'state', value={}), 'optimizer.state is empty'),
    'two_groups': (
        lambda c: c['optimizer']['param_groups'].append(c['optimizer']['param_groups'][0]),
        'has 2 groups of parameters, here are 1',
    ),
    'fewer_parameters': (put(*GROUP, 'params', value=[0]), 'has 1 parameters, here are 2'),
    'sgd': (drop(*GROUP, 'betas'), 'no betas: it is of another optimizer than this AdamW'),
    'rate_is_nan': (put(*GROUP, 'lr', value=float('nan')), r'param_groups\[0\].lr is nan'),
    'first_rate_is_a_text': (
        put(*GROUP, 'initial_lr', value='a'), r"param_groups\[0\].initial_lr is 'a', here 0.05",
    ),
    'decay_is_none': (put(*GROUP, 'weight_decay', value=None), 'weight_decay is None, here 0.01'),
    'state_of_other_shape': (
        put('optimizer', 'state', 0, 'exp_avg', value=torch.ones(5)),
        r'state\[0\].exp_avg has shape 5, its parameter 1x2',
    ),
    'gradients_are_a_number': (put('gradients', value=3), 'gradients are of type int, but'),
    'one_gradient': (put('gradients', value=[None]), 'gradients are 1, but there are 2 parameters'),
    'gradient_is_a_text': (put('gradients', value=['a', None]), r'gradients\[0\] is no tensor of'),
    'gradient_of_other_shape': (
        put('gradients', value=[None, torch.ones(5)]),
        r'gradients\[1\] has shape 5, its parameter 1',
    ),
    'parts_of_an_update_are_a_text': (
        lambda c: c.update(gradients=[None, None], accumulative_counts='4'),
        "accumulative_counts is '4', not a list of numbers",
    ),
    'loss_scale_is_zero': (
        put('optimizer', 'loss_scaler', value=dict(scale=0.0)), 'loss_scaler has no scale above 0',
    ),
    'loss_scaler_is_a_number': (
        put('optimizer', 'loss_scaler', value=3), 'loss_scaler has no scale above 0',
    ),
    'no_param_schedulers': (drop('param_schedulers'), 'are missing, but the config has 2'),
    'empty_param_schedulers': (put('param_schedulers', value=[]), 'are 0, but the config has 2'),
    'one_param_scheduler': (drop('param_schedulers', 0), 'are 1, but the config has 2'),
    'param_schedulers_swapped': (
        lambda c: c['param_schedulers'].reverse(),
        r'param_schedulers\[0\] has no .*: it is of another schedule than this LinearLR',
    ),
    'schedule_of_another_step': (
        put('param_schedulers', 0, '_global_step', value=4),
        'has made 4 steps, but meta tells of 12 iterations',
    ),
    'schedule_is_a_number': (put('param_schedulers', 1, value=3), r'\[1\] is of type int'),
    'average_without_a_hook': (put('ema_state_dict', value={}), 'config has no EMAHook'),
}  # fmt: skip


def resume(checkpoint: Any, folder: Path, hooks: tuple = (HOOK,)) -> None:
    torch.save(checkpoint, folder / 'epoch_2.pth')
    cfg = config(folder / 'resumed', hooks)
    cfg.resume, cfg.load_from = True, str(folder / 'epoch_2.pth')
    make_runner('parts', cfg).train()


@pytest.mark.parametrize('name', FAULTS)
def test_wrong_part(name, checkpoints, tmp_path):
    change, message = FAULTS[name]
    checkpoint = copy.deepcopy(checkpoints['plain'])
    change(checkpoint)
    with pytest.raises(WrongPart, match=f'cannot resume from .*epoch_2.pth: .*{message}'):
        resume(checkpoint, tmp_path)
    assert not list((tmp_path / 'resumed').glob('*.pth'))


# what the config of the checkpoint and that of the resumed training say -> what differs
OTHER_SCHEDULES = {
    'cosine': (dict(type='CosineAnnealingLR', T_max=4), dict(T_max=8), 'T_max is 4, here 8'),
    'end': (dict(type='LinearLR', end=2), dict(end=3), 'end is 2, here 3'),
    'milestones': (
        dict(type='MultiStepLR', milestones=[2, 3]), dict(milestones=[4, 6]),
        r'milestones is \[2, 3\], here \[4, 6\]',
    ),
    'steps': (dict(type='StepLR', step_size=1), dict(step_size=2), 'step_size is 1, here 2'),
    'restarts': (
        dict(type='CosineRestartLR', periods=[2, 2], restart_weights=[1, 1], eta_min=0),
        dict(periods=[4, 4]), r'periods is \[2, 2\], here \[4, 4\]',
    ),
    'iterations': (
        dict(type='CosineAnnealingLR', T_max=24, by_epoch=False), dict(T_max=48),
        'T_max is 24, here 48',
    ),
}  # fmt: skip


def go_on(cfg: Config, refused: str | None) -> None:
    """Goes on from the second epoch, or is told what does not fit."""
    cfg.resume, cfg.load_from = True, str(Path(cfg.work_dir, 'epoch_2.pth'))
    runner = make_runner('parts', cfg)
    with pytest.raises(WrongPart, match=refused) if refused else nullcontext():
        runner.train()


@pytest.mark.parametrize('name', OTHER_SCHEDULES)
def test_another_schedule(name, tmp_path):
    """As of ``--epochs``: what was loaded would stay the old one."""
    schedule, change, message = OTHER_SCHEDULES[name]
    cfg = config(tmp_path)
    cfg.param_scheduler = [schedule]
    make_runner('parts', cfg).train()
    for changed in ({}, change):
        cfg = config(tmp_path)
        cfg.param_scheduler = [{**schedule, **changed}]
        cfg.train_cfg.max_epochs = 4 if not changed else 8
        go_on(cfg, rf'param_schedulers\[0\].{message}.*--epochs' if changed else None)


# what a resumed config says of the optimizer, with a schedule or without -> what differs
OTHER_RATES = {
    'rate': (dict(lr=0.01), True, 'initial_lr is 0.05, here 0.01'),
    'rate without a schedule': (dict(lr=0.01), False, 'lr is 0.05, here 0.01'),
    'decay': (dict(weight_decay=0.5), True, 'weight_decay is 0.01, here 0.5'),
    'decay without a schedule': (dict(weight_decay=0), False, 'weight_decay is 0.01, here 0'),
}


@pytest.mark.parametrize('name', OTHER_RATES)
def test_another_rate(name, tmp_path):
    """As of ``--lr``: what was loaded would stay the old one."""
    change, has_schedule, message = OTHER_RATES[name]
    for changed in (None, {}, change):
        cfg = config(tmp_path, **(changed or {}))
        if not has_schedule:
            cfg.param_scheduler = None
        if changed is None:
            make_runner('parts', cfg).train()
        else:
            told = rf'param_groups\[0\].{message}.*--lr, --auto-scale-lr'
            go_on(cfg, told if changed else None)


SGD = dict(type='SGD', momentum=0.9)
SLOWER = dict(type='LinearMomentum', start_factor=0.5, by_epoch=False, end=ITERS)
# optimizer, schedule of its momentum, what a resumed config says -> what differs
OTHER_OPTIMIZERS = {
    'momentum': (SGD, None, dict(momentum=0.5), 'momentum is 0.9, here 0.5'),
    'no momentum': (SGD, None, dict(momentum=0), 'momentum is 0.9, here 0'),
    'nesterov': (SGD, None, dict(nesterov=True), 'nesterov is False, here True'),
    'dampening': (SGD, None, dict(dampening=0.1), 'dampening is 0, here 0.1'),
    'betas': ({}, None, dict(betas=(0.9, 0.99)), r'betas is \(0.9, 0.999\), here \(0.9, 0.99\)'),
    'eps': ({}, None, dict(eps=1e-6), 'eps is 1e-08, here 1e-06'),
    'amsgrad': ({}, None, dict(amsgrad=True), 'amsgrad is False, here True'),
    'list of betas': (dict(betas=(0.9, 0.99)), None, dict(betas=[0.9, 0.99]), None),
    'same computed otherwise': (SGD, None, dict(foreach=False), None),
    'scheduled momentum': (SGD, SLOWER, {}, None),
    'start of momentum': (SGD, SLOWER, dict(momentum=0.5), 'initial_momentum is 0.9, here 0.5'),
    'scheduled betas': ({}, SLOWER, {}, None),
    'start of betas': ({}, SLOWER, dict(betas=(0.8, 0.999)), 'initial_momentum is 0.9, here 0.8'),
    'rest of betas': ({}, SLOWER, dict(betas=(0.9, 0.99)), 'betas is .*, here .*0.99'),
}


@pytest.mark.parametrize('name', OTHER_OPTIMIZERS)
def test_another_optimizer_of_the_same_kind(name, tmp_path):
    """What was loaded would stay the old one."""
    optimizer, schedule, change, message = OTHER_OPTIMIZERS[name]
    for changed in (None, {}, change):
        cfg = config(tmp_path, **{**optimizer, **(changed or {})})
        if schedule:
            cfg.param_scheduler.append(schedule)
        if changed is None:
            make_runner('parts', cfg).train()
        else:
            told = rf'param_groups\[0\].{message}.*optim_wrapper of its start'
            go_on(cfg, told if changed and message else None)


def test_a_file_of_an_earlier_torch(checkpoints, tmp_path):
    """It lacks what later ones add to AdamW, and fill in."""
    checkpoint = copy.deepcopy(checkpoints['plain'])
    checkpoint['optimizer']['param_groups'][0].pop('decoupled_weight_decay', None)
    resume(checkpoint, tmp_path)
    assert (tmp_path / 'resumed' / 'epoch_4.pth').exists()


def test_a_scaled_rate_may_follow_another_batch_size(tmp_path, capsys):
    for batch in (2, 3):
        cfg = config(tmp_path)
        cfg.auto_scale_lr = dict(enable=True, base_batch_size=2)
        cfg.train_dataloader.batch_size = batch
        if batch == 3:
            cfg.resume, cfg.load_from = True, str(tmp_path / 'epoch_2.pth')
        runner = make_runner('parts', cfg)
        runner.train()
    group = runner.optim_wrapper.optimizer.param_groups[0]
    assert group['initial_lr'] == 0.05
    told = capsys.readouterr().out
    assert told.count('initial_lr is 0.05, here 0.075') == 1


def test_a_schedule_in_iterations_may_follow_another_batch_size(tmp_path):
    schedule = dict(type='CosineAnnealingLR', T_max=4, convert_to_iter_based=True)
    cfg = config(tmp_path)
    cfg.param_scheduler = [schedule]
    make_runner('parts', cfg).train()
    cfg = config(tmp_path)
    cfg.param_scheduler = [schedule]
    cfg.train_dataloader.batch_size = 3
    cfg.resume, cfg.load_from = True, str(tmp_path / 'epoch_2.pth')
    make_runner('parts', cfg).train()


AVERAGES = {
    'none': (drop('ema_state_dict'), 'has no ema_state_dict, but the config has an EMAHook'),
    'list': (put('ema_state_dict', value=[]), 'ema_state_dict is of type list'),
    'empty': (put('ema_state_dict', value={}), 'ema_state_dict does not have'),
}


@pytest.mark.parametrize('name', AVERAGES)
def test_wrong_average(name, checkpoints, tmp_path):
    change, message = AVERAGES[name]
    checkpoint = copy.deepcopy(checkpoints['ema'])
    change(checkpoint)
    with pytest.raises(WrongPart, match=message):
        resume(checkpoint, tmp_path, (HOOK, EMA))


@pytest.mark.parametrize(('name', 'hooks'), [('plain', (HOOK,)), ('ema', (HOOK, EMA))])
def test_own_checkpoint(name, hooks, checkpoints, tmp_path):
    resume(copy.deepcopy(checkpoints[name]), tmp_path, hooks)
    assert (tmp_path / 'resumed' / 'epoch_4.pth').exists()


def test_weights_alone_may_be_loaded(checkpoints, tmp_path):
    torch.save(dict(state_dict=checkpoints['plain']['state_dict']), tmp_path / 'weights.pth')
    cfg = config(tmp_path)
    cfg.load_from = str(tmp_path / 'weights.pth')
    make_runner('parts', cfg).train()


@pytest.mark.parametrize('name', ['no_meta', 'no_message_hub', 'iter_is_a_text', 'seed_is_a_list'])
def test_auto_names_it_too(name, checkpoints, tmp_path):
    change, message = FAULTS[name]
    checkpoint = copy.deepcopy(checkpoints['plain'])
    change(checkpoint)
    torch.save(checkpoint, tmp_path / 'epoch_2.pth')
    with pytest.raises(UnusableCheckpoints, match=f'epoch_2.pth cannot be resumed: .*{message}'):
        find(str(tmp_path))
    torch.save(checkpoints['plain'], tmp_path / 'epoch_1.pth')
    assert find(str(tmp_path)) == str(tmp_path / 'epoch_1.pth')
