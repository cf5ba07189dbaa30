"""A config is fitted to the machine, or the launcher refused."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from attnpool_backbones.checkpoints.reading import read_content
from attnpool_backbones.command_line import UserError
from attnpool_backbones.engine import CPUAmpOptimWrapper
from attnpool_backbones.launching import devices
from attnpool_backbones.launching.launch import build_runner
from attnpool_backbones.launching.runners import QuietRunner
from tests.engine.tiny_run import make_config

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
    devices.enable_amp(cfg)
    assert dict(cfg.optim_wrapper) == dict(
        type='attnpool_backbones.CPUAmpOptimWrapper', optimizer=dict(type='SGD')
    )


@no_cuda
def test_a_config_in_mixed_precision_trains_on_the_cpu(tmp_path: Path) -> None:
    cfg = make_config(tmp_path)
    cfg.launcher, cfg.experiment_name = 'none', 'amp_config'
    cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    runner = build_runner(cfg)
    runner.train()
    assert type(runner.optim_wrapper) is CPUAmpOptimWrapper


def test_amp_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD'))))
    devices.enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'


def test_amp_refuses_other_wrappers() -> None:
    with pytest.raises(UserError, match='ApexOptimWrapper'):
        devices.enable_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))


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
    devices.make_norms_plain(model)
    assert model.neck[0].norm_cfg == dict(type='BN', requires_grad=True)
    assert (model.head.norm_cfg.type, model.norm_cfg.type) == ('BN', 'GN')


@pytest.mark.parametrize('launcher', ['none', 'pytorch'])
def test_configs_of_pure_python_can_be_written(launcher: str, tmp_path: Path) -> None:
    file = tmp_path / 'lazy.py'
    file.write_text(
        'from mmdet.models import RetinaNet\n'
        'from torch.nn import SyncBatchNorm\n'
        "launcher = 'none'\n"
        'model = dict(type=RetinaNet, norm_cfg=dict(type=SyncBatchNorm))\n'
    )
    cfg = Config.fromfile(file)
    cfg.launcher = launcher
    devices.fit_to_devices(cfg)
    assert 'RetinaNet' in cfg.pretty_text


@no_cuda
@pytest.mark.parametrize(
    ('launcher', 'message'), [('slurm', 'needs CUDA'), ('pytorch', 'torchrun.*RANK')]
)
def test_launchers_without_cuda(
    launcher: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=message):
        build_runner(Config(dict(launcher=launcher, model=dict())))


@no_cuda
def test_a_port_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(('', 0))
        other.listen()
        port = str(other.getsockname()[1])
        group = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1')
        for name, value in dict(group, MASTER_PORT=port).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(devices, 'end_with_parent', lambda: None)
        with pytest.raises(UserError, match=f'port {port} of this machine is taken.*PORT'):
            devices.join_group(Config(dict(launcher='pytorch')))


def test_one_process_has_no_strategy(tmp_path: Path) -> None:
    cfg = make_config(tmp_path)
    cfg.launcher = 'none'
    cfg.strategy = dict(type='attnpool_backbones.ShardedStrategy')
    cfg.experiment_name = 'no_strategy'
    assert type(build_runner(cfg)) is QuietRunner


def test_one_process_has_norms_of_its_own() -> None:
    bricks = pytest.importorskip('mmcv.cnn')
    norms = [dict(type='MMSyncBN', requires_grad=False), dict(type='SyncBN')]
    cfg = Config(dict(launcher='none', model=dict(neck=dict(norm_cfg=norms))))
    devices.fit_to_devices(cfg)
    # mmcv's own asks for other processes when it is built
    name, norm = bricks.build_norm_layer(cfg.model.neck.norm_cfg[0], 4)
    assert name == 'bn' and not norm.weight.requires_grad
    # which mmengine reverts; the config that is kept may be for more processes
    assert cfg.model.neck.norm_cfg[1].type == 'SyncBN'


OPEN_MPI = dict(OMPI_COMM_WORLD_RANK='1', OMPI_COMM_WORLD_LOCAL_RANK='1')
SLURM = dict(SLURM_PROCID='1', SLURM_LOCALID='1')
TORCHRUN = dict(RANK='1', LOCAL_RANK='1')
BATCH_SCRIPT = dict(SLURM_PROCID='0', SLURM_LOCALID='0')


@pytest.mark.parametrize(
    ('launcher', 'variables', 'is_first'),
    [
        ('none', {}, True),
        ('none', SLURM, True),  # a sweep of single trainings
        ('none', OPEN_MPI, True),
        ('mpi', OPEN_MPI, False),
        ('mpi', OPEN_MPI | BATCH_SCRIPT, False),
        ('mpi', dict.fromkeys(OPEN_MPI, '0') | SLURM, True),
        ('slurm', SLURM, False),
        ('slurm', BATCH_SCRIPT, True),
        ('pytorch', TORCHRUN, False),
        ('pytorch', TORCHRUN | BATCH_SCRIPT, False),
        ('pytorch', dict.fromkeys(TORCHRUN, '0') | SLURM, True),
    ],
)
def test_first_process(
    launcher: str, variables: dict, is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OPEN_MPI | SLURM | TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert devices.is_first_process(launcher) is is_first
    assert devices.is_first_of_machine(launcher) is is_first
    if launcher != 'none':
        assert devices.is_first_process() is is_first


def test_processes_of_open_mpi_have_devices_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, 'end_with_parent', lambda: None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setenv('OMPI_COMM_WORLD_LOCAL_RANK', '3')
    # so that it is put back, too
    monkeypatch.setenv('LOCAL_RANK', '')
    monkeypatch.delenv('LOCAL_RANK')
    devices.join_group(Config(dict(launcher='mpi')))
    assert os.environ['LOCAL_RANK'] == '3'


@pytest.fixture
def group() -> Iterator[None]:
    """A group of this process alone."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    devices.leave_group()


def loop_of(**settings: str) -> SimpleNamespace:
    metric = SimpleNamespace(**dict(collect_device='cpu', collect_dir=None) | settings)
    return SimpleNamespace(evaluator=SimpleNamespace(metrics=[metric]))


@pytest.mark.parametrize(
    ('folder', 'seen', 'settings', 'fault'),
    [
        ('here', None, {}, ''),
        ('file', None, {}, 'process 0: File exists'),
        # what another process is told that has a disk of its own
        ('here', 'elsewhere', {}, 'process 0: No such file'),
        ('file', None, dict(collect_device='gpu'), ''),
        ('file', None, dict(collect_dir='results'), ''),
    ],
)
def test_results_of_an_evaluation_need_a_place_to_meet(
    folder: str, seen: str | None, settings: dict, fault: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, group: None,
) -> None:  # fmt: skip
    (tmp_path / 'here').mkdir()
    (tmp_path / 'file').mkdir()
    (tmp_path / 'file' / devices.MEETING_PLACE).touch()
    monkeypatch.chdir(tmp_path / folder)

    def broadcast(places: list[str]) -> None:
        places[0] = seen

    if seen is not None:
        monkeypatch.setattr(torch.distributed, 'broadcast_object_list', broadcast)
    monkeypatch.setattr(devices, 'get_dist_info', lambda: (0, 2))
    monkeypatch.setattr(
        torch.distributed, 'all_gather_object', lambda found, own: found.__setitem__(0, own)
    )
    with pytest.raises(UserError, match=fault) if fault else nullcontext():
        devices.require_shared_folder(loop_of(**settings))
    assert seen or not list((tmp_path / 'here').glob(f'{devices.MEETING_PLACE}/*'))


def test_one_process_needs_no_place_to_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: None
) -> None:
    (tmp_path / devices.MEETING_PLACE).touch()
    monkeypatch.chdir(tmp_path)
    devices.require_shared_folder(None)
    devices.require_shared_folder(loop_of())


SCRIPT = """
import sys
from attnpool_backbones.launching.devices import leave_group
from attnpool_backbones.launching.launch import build_runner
from attnpool_backbones.process_lifetime import end_now
from tests.engine.tiny_run import make_config
cfg = make_config(sys.argv[1], hooks=(dict(type='attnpool_backbones.RandomStateHook'),))
cfg.launcher = 'pytorch'
cfg.experiment_name = 'two_processes'
build_runner(cfg).train()
leave_group()
end_now(0)  # as the commands end: threads of gloo may abort a process that takes itself apart
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
    checkpoint = read_content(str(tmp_path / 'run' / 'epoch_4.pth'))
    # half of the samples each
    assert checkpoint['meta']['iter'] == 12
    assert not list((tmp_path / 'run').glob('.*'))
