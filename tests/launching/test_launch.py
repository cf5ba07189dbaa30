"""Flags become the right settings, or one message."""

import argparse
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from attnpool_backbones.checkpoints.safe_globals import register_safe_globals
from attnpool_backbones.config_files import config_root
from attnpool_backbones.engine import CPUAmpOptimWrapper
from attnpool_backbones.launching import launch
from attnpool_backbones.launching.preflight import PreflightError
from tests.engine.tiny_run import make_config, make_runner

DIGITS = config_root() / 'patchconvnet/mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py'

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason='is about machines without CUDA')


@no_cuda
def test_amp_on_the_cpu() -> None:
    cfg = Config(
        dict(
            optim_wrapper=dict(
                type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='SGD')
            )
        )
    )
    launch.enable_amp(cfg)
    assert dict(cfg.optim_wrapper) == dict(
        type='attnpool_backbones.CPUAmpOptimWrapper', optimizer=dict(type='SGD')
    )


@no_cuda
def test_a_config_in_mixed_precision_trains_on_the_cpu(tmp_path: Path) -> None:
    cfg = make_config(tmp_path)
    cfg.launcher, cfg.experiment_name = 'none', 'amp_config'
    cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    runner = launch.build_runner(cfg)
    runner.train()
    assert type(runner.optim_wrapper) is CPUAmpOptimWrapper


def test_amp_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD'))))
    launch.enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'


def test_amp_refuses_other_wrappers() -> None:
    with pytest.raises(PreflightError, match='ApexOptimWrapper'):
        launch.enable_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))


@pytest.mark.parametrize('present', [None, dict(enable=False)])
def test_auto_scale_lr_needs_a_batch_size(present: dict | None) -> None:
    cfg = Config(dict(auto_scale_lr=present))
    with pytest.raises(PreflightError, match='base_batch_size=16'):
        launch.enable_auto_scale_lr(cfg)
    cfg.auto_scale_lr = dict(base_batch_size=16)
    launch.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable is True


def test_sync_norms_are_replaced_everywhere() -> None:
    model = Config(
        dict(
            model=dict(
                neck=[dict(type='FPN', norm_cfg=dict(type='SyncBN', requires_grad=True))],
                head=dict(norm_cfg=dict(type='MMSyncBN')),
                norm_cfg=dict(type='GN'),
            )
        )
    ).model
    plain = launch.without_sync_norm(model)
    assert plain.neck[0].norm_cfg == dict(type='BN', requires_grad=True)
    assert (plain.head.norm_cfg.type, plain.norm_cfg.type) == ('BN', 'GN')
    assert model.neck[0].norm_cfg.type == 'SyncBN'


@no_cuda
@pytest.mark.parametrize(
    ('launcher', 'message'), [('slurm', 'needs CUDA'), ('pytorch', 'torchrun.*RANK')]
)
def test_launchers_without_cuda(
    launcher: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PreflightError, match=message):
        launch.build_runner(Config(dict(launcher=launcher, model=dict())))


def test_one_process_has_no_strategy(tmp_path: Path) -> None:
    cfg = make_config(tmp_path)
    cfg.launcher = 'none'
    cfg.strategy = dict(type='attnpool_backbones.ShardedStrategy')
    cfg.experiment_name = 'no_strategy'
    assert type(launch.build_runner(cfg)) is Runner


@pytest.mark.parametrize('load_from', [None, 'named.pth'])
def test_resume_of_a_config(load_from, tmp_path: Path, monkeypatch) -> None:
    chosen = []

    def stop(cfg, resume):
        chosen.append(resume)
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, 'choose_checkpoint_to_resume', stop)
    (tmp_path / 'config.py').write_text(
        f'_base_ = {str(DIGITS)!r}\nresume = True\nload_from = {load_from!r}\n'
    )
    flags = dict.fromkeys(('cfg_options', 'seed', 'amp', 'compile', 'auto_scale_lr', 'resume'))
    args = Namespace(
        config=str(tmp_path / 'config.py'), work_dir=str(tmp_path), launcher='none', **flags
    )
    with pytest.raises(KeyboardInterrupt):
        launch.train(args)
    assert chosen == [load_from or 'auto']


def test_resume(tmp_path: Path) -> None:
    register_safe_globals()
    cfg = make_config(tmp_path, seed=None)
    launch.choose_checkpoint_to_resume(cfg, 'auto')
    assert cfg.resume is False and cfg.get('load_from') is None
    runner = make_runner('launch', cfg)
    runner.train()
    launch.choose_checkpoint_to_resume(cfg, 'auto')
    assert cfg.resume is True and cfg.load_from == str(tmp_path / 'epoch_4.pth')
    assert cfg.randomness.seed == runner.seed
    cfg = make_config(tmp_path, seed=5)
    launch.choose_checkpoint_to_resume(cfg, str(tmp_path / 'epoch_1.pth'))
    assert cfg.load_from.endswith('epoch_1.pth') and cfg.randomness.seed == 5
    with pytest.raises(PreflightError, match='that folder has: epoch_1.pth, epoch_2.pth'):
        launch.choose_checkpoint_to_resume(cfg, str(tmp_path / 'epoch_9.pth'))
    torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
    with pytest.raises(PreflightError, match='only weights'):
        launch.choose_checkpoint_to_resume(cfg, str(tmp_path / 'weights.pth'))


def test_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = Config(dict(test_evaluator=[dict(type='IoUMetric')]))
    assert launch.plan_output(cfg, 'mmseg', None) is None
    assert launch.plan_output(cfg, 'mmseg', 'folder') is None
    assert cfg.test_evaluator[0] == dict(type='IoUMetric', output_dir='folder', keep_results=True)
    assert launch.plan_output(cfg, 'mmseg', 'out.pkl').out_file_path == 'out.pkl'
    with pytest.raises(PreflightError, match='pickle'):
        launch.plan_output(cfg, 'mmdet', 'folder')


@pytest.mark.parametrize('task', ['mmdet', 'mmseg'])
def test_pictures(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = Config(dict(default_hooks=dict(), visualizer=dict(type='Visualizer')))
    launch.enable_pictures(cfg, task, show=False, show_dir='pictures', wait_time=2)
    hook = cfg.default_hooks.visualization
    assert hook.draw is True and 'show' not in hook
    folder = hook.test_out_dir if task == 'mmdet' else cfg.visualizer.save_dir
    assert folder == str(tmp_path / 'pictures')


def test_tta_of_segmentation_needs_a_pipeline() -> None:
    cfg = Config(
        dict(model=dict(type='EncoderDecoder'), test_dataloader=dict(dataset=dict(pipeline=[])))
    )
    with pytest.raises(PreflightError, match='no tta_pipeline'):
        launch.enable_tta(cfg, 'mmseg')
    cfg.tta_pipeline = [dict(type='TestTimeAug')]
    launch.enable_tta(cfg, 'mmseg')
    assert cfg.model.type == 'SegTTAModel' and cfg.model.module.type == 'EncoderDecoder'
    assert cfg.test_dataloader.dataset.pipeline == [dict(type='TestTimeAug')]


def test_tta_of_detection_flips_by_default() -> None:
    pytest.importorskip('mmdet')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs', meta_keys=('img_id',))]
    cfg = Config(
        dict(
            model=dict(type='MaskRCNN'),
            test_dataloader=dict(
                dataset=dict(type='RepeatDataset', dataset=dict(pipeline=pipeline))
            ),
        )
    )
    launch.enable_tta(cfg, 'mmdet')
    load, augment = cfg.test_dataloader.dataset.dataset.pipeline
    flips, (packing,) = augment.transforms
    assert load.type == 'LoadImageFromFile' and [flip.prob for flip in flips] == [1.0, 0.0]
    assert 'flip_direction' in packing.meta_keys
    assert cfg.model.type == 'attnpool_backbones.InstanceTTAModel'


@pytest.mark.parametrize(
    ('typed', 'value'),
    [
        ('/tmp/my data/', '/tmp/my data/'),
        ('"/tmp/my data (1)/"', '/tmp/my data (1)/'),
        (' 3', 3),
        ('None', None),
        ('a, b', ['a', 'b']),
        ('[(1, 2), ( 3, 4 )]', [(1, 2), (3, 4)]),
        ("'(1, 2)'", (1, 2)),
        ('[]', []),
        ('s3://bucket/a(1)', 's3://bucket/a(1)'),
    ],
)
def test_values_of_options(typed: str, value: object) -> None:
    parser = argparse.ArgumentParser()
    launch.add_common_arguments(parser)
    assert parser.parse_args(['--cfg-options', f'a.b={typed}']).cfg_options == {'a.b': value}


def test_bad_options_and_bases(tmp_path: Path) -> None:
    file = tmp_path / 'config.py'
    file.write_text("default_scope = 'mmdet'\nvalues = [1, 2]\n")
    with pytest.raises(PreflightError, match='do not fit'):
        launch.load_config(str(file), {'values.7': 1})
    file.write_text("_base_ = './missing.py'\n")
    with pytest.raises(PreflightError, match='cannot be read'):
        launch.load_config(str(file))
    file.write_text('model = dict(\n')
    with pytest.raises(PreflightError, match='cannot be read'):
        launch.load_config(str(file))


SCRIPT = """
import sys
from attnpool_backbones.launching.launch import build_runner, leave_group
from tests.engine.tiny_run import make_config
cfg = make_config(sys.argv[1], hooks=(dict(type='attnpool_backbones.RandomStateHook'),))
cfg.launcher = 'pytorch'
cfg.experiment_name = 'two_processes'
build_runner(cfg).train()
leave_group()
"""


@no_cuda
def test_two_cpu_processes(tmp_path: Path, repo_root: Path) -> None:
    (tmp_path / 'script.py').write_text(SCRIPT)
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc-per-node=2',
            str(tmp_path / 'script.py'),
            str(tmp_path / 'run'),
        ],
        env=dict(os.environ, PYTHONPATH=str(repo_root), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    register_safe_globals()
    checkpoint = torch.load(tmp_path / 'run' / 'epoch_4.pth', weights_only=True)
    # half of the samples each
    assert checkpoint['meta']['iter'] == 12
    assert not list((tmp_path / 'run').glob('.*'))
