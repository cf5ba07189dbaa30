"""Fits a config to the machine: without CUDA, in one or in more processes, in mixed precision."""

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_dist_info, is_distributed

from attnpool_backbones.command_line import UserError, line_of
from attnpool_backbones.config_types import config_entries, type_name
from attnpool_backbones.launching.processes import taken_port
from attnpool_backbones.process_lifetime import end_with_parent

__all__ = [
    'enable_amp',
    'fit_to_devices',
    'is_first_of_machine',
    'is_first_process',
    'join_group',
    'leave_group',
    'make_norms_plain',
    'meeting',
    'require_launcher',
    'require_same_start',
    'require_shared_folder',
]

SYNC_NORMS = ('SyncBN', 'MMSyncBN', 'SyncBatchNorm')
GROUP_VARIABLES = ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
NUMBERS = dict(
    pytorch=('RANK', 'LOCAL_RANK'),
    # before slurm: mpirun in a job of Slurm hands the job's own number on to all it starts
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK'),
    slurm=('SLURM_PROCID', 'SLURM_LOCALID'),
)
"""Launcher -> where it tells a process its number, in the run and on its machine."""
MEETING_PLACE = '.dist_test'
"""Where processes put their results for mmengine's metrics, below the current folder."""


def require_launcher(cfg: Config) -> None:
    """Checks that processes started by ``cfg.launcher`` can work together on this machine.

    Args:
        cfg: The whole config.

    Raises:
        UserError: If the launcher needs CUDA, or has not started this process.
    """
    if cfg.launcher == 'none' or torch.cuda.is_available():
        return
    if cfg.launcher != 'pytorch':
        raise UserError(
            f'--launcher {cfg.launcher} needs CUDA, which this machine or this '
            'torch lacks; on CPUs use torchrun and --launcher pytorch'
        )
    missing = [name for name in GROUP_VARIABLES if name not in os.environ]
    if missing:
        raise UserError(
            '--launcher pytorch expects to be started by torchrun, as in '
            f'tools/dist_train.sh ({", ".join(missing)} not set)'
        )


def fit_to_devices(cfg: Config) -> None:
    """Changes what mmengine could not run here. Doing it again changes nothing more.

    A config's ``strategy`` is for several processes; one process has nobody to share with.

    Args:
        cfg: The whole config, changed in place.
    """
    cuda = torch.cuda.is_available()
    if not cuda and is_amp(cfg):
        enable_amp(cfg)  # mmengine's own wrapper refuses to train on a CPU
    if cfg.launcher == 'none':
        cfg.pop('strategy', None)
        # mmengine would make it a plain one, but it cannot be built without a process group
        make_norms_plain(cfg.model, ('MMSyncBN',))
    elif not cuda:
        distribute_on_cpu(cfg)
    if cfg.get('strategy'):
        # mmengine's runner of strategies passes on what a config lacks as None
        cfg.setdefault('env_cfg', ConfigDict())


def distribute_on_cpu(cfg: Config) -> None:
    """Makes a config train by several processes without CUDA.

    mmengine would pass a CUDA device to DistributedDataParallel, and keep synchronised batch norms,
    which do not train on a CPU.
    """
    wrapper = cfg.setdefault(
        'model_wrapper_cfg',
        ConfigDict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        ),
    )
    wrapper.device_ids = None
    make_norms_plain(cfg.model)


def join_group(cfg: Config, local_rank: int = 0) -> None:
    """Joins this process to the others that its launcher started, if there are any.

    mmengine does it where there is CUDA, and would ask for a device where there is none.

    Args:
        cfg: The whole config.
        local_rank: Number of this process on its machine, unless the launcher tells it. Default: 0.

    Raises:
        UserError: If the launcher does not work on this machine.
    """
    if cfg.launcher == 'none':
        return
    require_launcher(cfg)
    end_with_parent()
    # mmengine reads it, but sets it for Slurm only
    os.environ.setdefault('LOCAL_RANK', told_number(cfg.launcher, 1) or str(local_rank))
    if not torch.cuda.is_available() and not is_distributed():
        timeout = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
        with meeting():
            torch.distributed.init_process_group(
                'gloo', timeout=None if timeout is None else timedelta(seconds=timeout)
            )


@contextmanager
def meeting() -> Iterator[None]:
    """Turns the error of processes that cannot meet into one message.

    Raises:
        UserError: Naming the address and the port.
    """
    try:
        yield
    except (torch.distributed.DistNetworkError, torch.distributed.DistStoreError) as error:
        address, port = map(os.environ.get, ('MASTER_ADDR', 'MASTER_PORT'))
        if 'EADDRINUSE' in str(error):
            raise UserError(taken_port(port)) from error
        raise UserError(
            f'the processes of the run cannot meet at {address}, port {port}: {line_of(error)}'
        ) from error


def is_first_process(launcher: str | None = None) -> bool:
    """Tells whether this is the process that writes, before the processes know each other.

    Args:
        launcher: How the processes of the run were started; with ``'none'`` it has one, whatever
            else was started beside it. Default: None, not known, so that any launcher counts.
    """
    return told_number(launcher, 0) in ('', '0')


def is_first_of_machine(launcher: str) -> bool:
    """Tells whether this is the first process of its machine, before they know each other.

    Args:
        launcher: How the processes of the run were started.
    """
    return told_number(launcher, 1) in ('', '0')


def told_number(launcher: str | None, place: int) -> str:
    """Returns what a launcher told this process; '' if it told nothing."""
    names = [told[place] for name, told in NUMBERS.items() if launcher in (None, name)]
    return next(filter(None, map(os.environ.get, names)), '')


def require_same_start(cfg: Config) -> None:
    """Checks that all processes of a run start from the same checkpoint.

    Args:
        cfg: The whole config.

    Raises:
        UserError: If they see different files, as on machines with folders of their own.
    """
    if not is_distributed():
        return
    starts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(starts, cfg.get('load_from'))
    if len(set(starts)) > 1:
        seen = ', '.join(f'process {rank}: {start}' for rank, start in enumerate(starts))
        raise UserError(
            f'the processes would start from different checkpoints ({seen}): is the work folder '
            'the same on all machines?'
        )


def require_shared_folder(loop: Any) -> None:
    """Checks that all processes of a run find the files of the others in their current folder.

    The results of an evaluation meet there, unless its metrics have a ``collect_dir`` or
    ``collect_device='gpu'``.

    Args:
        loop: Of the evaluation; None if there is none.

    Raises:
        UserError: In all processes, if one of them does not.
    """
    metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', ())
    meeting = [m for m in metrics if m.collect_device == 'cpu' and m.collect_dir is None]
    rank, count = get_dist_info()
    if count == 1 or not meeting:
        return
    places, fault = [''], ''
    try:
        if rank == 0:
            os.makedirs(MEETING_PLACE, exist_ok=True)
            places = [tempfile.mkdtemp(dir=MEETING_PLACE)]
    except OSError as error:
        fault = error.strerror
    torch.distributed.broadcast_object_list(places)
    try:
        if places[0]:
            Path(places[0], str(rank)).touch()
    except OSError as error:
        fault = error.strerror
    faults = [''] * count
    torch.distributed.all_gather_object(faults, fault)
    if rank == 0 and places[0]:
        shutil.rmtree(places[0], ignore_errors=True)
    if any(faults):
        seen = ', '.join(f'process {rank}: {fault}' for rank, fault in enumerate(faults) if fault)
        raise UserError(
            f'the processes cannot exchange the results of an evaluation in {MEETING_PLACE} of the '
            f'current folder ({seen}): start them in a folder that all machines share and may '
            "write to, or give the metrics collect_device='gpu'"
        )


def leave_group() -> None:
    """Ends the process group, if there is one, and its threads.

    A thread of gloo may hold the last reference to a tensor that Python made. When it lets go of it
    while Python is going down, the process is aborted ("terminate called without an active
    exception"), after all its work was done. The threads end with the last reference to their
    group, which models wrapped for several processes keep in cycles.
    """
    if is_distributed():
        torch.distributed.destroy_process_group()
        gc.collect()


def make_norms_plain(model: Any, kinds: Sequence[str] = SYNC_NORMS) -> None:
    """Puts plain in place of synchronised batch norms.

    Args:
        model: The config of a model, changed in place: a copy of one of pure Python has classes in
            place of their names, and cannot be written.
        kinds: Names of the types that are replaced. Default: all that are synchronised.
    """
    for _, entry in config_entries(model):
        if type_name(entry) in kinds:
            entry['type'] = 'BN'


def is_amp(cfg: Config) -> bool:
    """Tells whether a config trains in mixed precision of mmengine's."""
    return type_name(cfg.get('optim_wrapper') or {}) == 'AmpOptimWrapper'


def enable_amp(cfg: Config) -> None:
    """Switches to mixed precision: float16 with loss scaling on CUDA, bfloat16 on the CPU.

    Not bfloat16 on CUDA, because mmcv's operators have no kernels for it.

    Args:
        cfg: The whole config, changed in place.

    Raises:
        UserError: If the config has a wrapper of another kind.
    """
    wrapper = cfg.get('optim_wrapper')
    kind = (type_name(wrapper) or 'OptimWrapper') if isinstance(wrapper, Mapping) else None
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'CPUAmpOptimWrapper'):
        has = 'no optim_wrapper' if kind is None else kind
        raise UserError(f'--amp replaces OptimWrapper, but the config has {has}')
    if torch.cuda.is_available():
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
        return
    wrapper.type = 'attnpool_backbones.CPUAmpOptimWrapper'
    for key in ('loss_scale', 'dtype', 'use_fsdp'):
        wrapper.pop(key, None)
