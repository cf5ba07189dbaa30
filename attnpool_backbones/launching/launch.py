"""From a config file and command-line flags to a Runner, for detection and segmentation alike.

What ``tools/train.py`` and ``tools/test.py`` do is here; they only parse flags.
"""

import argparse
import os
import re
from collections.abc import Mapping
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dist import is_distributed
from mmengine.evaluator import DumpResults
from mmengine.runner import FlexibleRunner, Runner

from attnpool_backbones.checkpoints.safe_globals import register_safe_globals
from attnpool_backbones.command_line import UserError
from attnpool_backbones.compatibility import IncompatibleEnvironment, check_environment
from attnpool_backbones.launching.checkpoint_check import require_own_weights, stored_shapes
from attnpool_backbones.launching.latest_checkpoint import (
    find_resumable_checkpoint,
    is_resumable,
    stored_seed,
)
from attnpool_backbones.launching.preflight import (
    PreflightError,
    check_config,
    find_config,
    recognise_task,
    require_target_file,
    require_target_folder,
)

__all__ = ['CfgOptions', 'add_common_arguments', 'build_runner', 'load_config', 'test', 'train']

NEEDS = {'mmdet': 'det', 'mmseg': 'seg'}
SYNC_NORMS = ('SyncBN', 'MMSyncBN')
MAX_SEED = 2**32 - 1  # of numpy
VISUALIZATION_HOOKS = {'mmdet': 'DetVisualizationHook', 'mmseg': 'SegVisualizationHook'}


class CfgOptions(DictAction):
    """``--cfg-options key=value ...`` that answers a malformed option with a message."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        for option in values:
            key, equals, value = option.partition('=')
            if not equals or not all(key.split('.')):
                raise argparse.ArgumentError(
                    self,
                    f'{option!r} is not of the form key=value, for instance '
                    'train_dataloader.batch_size=4',
                )
            # mmengine would take it for a word, or never return
            if re.search(r'(^|[\[(,\'"])\s*(\w+\(|{)', value):
                raise argparse.ArgumentError(
                    self,
                    f'{option!r}: a value is a number, a word, "[a,b]" or "(a,b)"; set the entries '
                    'of a dict one by one, as in model.backbone.arch=s60',
                )
            if is_list(value) and re.search(r'[^\s,\[(]\s+[^\s,\])]', value):
                raise argparse.ArgumentError(
                    self,
                    f'{option!r}: spaces inside of an entry of a list would be lost; set it in a '
                    'config of your own',
                )
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, ValueError) as error:
            raise argparse.ArgumentError(self, f'{" ".join(values)}: {error}') from error

    @staticmethod
    def _parse_iterable(value: str) -> Any:
        """Parses a value; mmengine would drop the spaces of a single one, a path for instance."""
        if is_list(value):
            return DictAction._parse_iterable(value)
        return DictAction._parse_int_float_bool(value.strip().strip('\'"'))


def is_list(value: str) -> bool:
    """Tells whether mmengine takes the value of an option for a list or a tuple."""
    return ',' in value or re.match(r'\s*[\'"]*[\[(].*[\])][\'"]*\s*$', value) is not None


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that training and testing share.

    Args:
        parser (ArgumentParser): Extended in place.
    """
    parser.add_argument(
        '--work-dir',
        help='folder for logs, checkpoints and results (default: work_dirs/CONFIG_NAME)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.batch_size=4; '
        'lists as key="[a,b]" or key=a,b',
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='torch.compile the backbone; needs a C++ compiler on the CPU',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started; without CUDA only none and pytorch',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by older launchers'
    )


def load_config(
    path: str,
    cfg_options: dict[str, Any] | None = None,
    work_dir: str | None = None,
    launcher: str = 'none',
) -> Config:
    """Reads a config and applies the flags that training and testing share.

    Args:
        path (str): The config file.
        cfg_options (dict | None): Settings to override, by dotted key. Defaults to None.
        work_dir (str | None): Folder for everything that is written. Defaults to the config's own,
            or else to ``work_dirs/CONFIG_NAME``.
        launcher (str): How the processes were started. Defaults to ``'none'``.

    Returns:
        Config: The whole config.

    Raises:
        PreflightError: If the config or one of its bases is missing or malformed, or an option does
            not fit it.
        IncompatibleEnvironment: If the library the config is written for is missing or unusable.
    """
    file = find_config(path)
    try:
        cfg = Config.fromfile(file)
    except (UserError, IncompatibleEnvironment):
        raise
    except Exception as error:  # a config is a program: anything may go wrong in it
        cause = f'{type(error).__name__}: {error}'.removesuffix(': ')
        raise PreflightError(
            f'config {file} cannot be read: {cause}{unknown_base(file)}'
        ) from error
    try:
        cfg.merge_from_dict(cfg_options or {})
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise PreflightError(f'--cfg-options do not fit {file}: {error}') from error
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get('work_dir') or os.path.join('work_dirs', file.stem)
    check_environment(NEEDS[recognise_task(cfg)])
    return cfg


def unknown_base(file: Path) -> str:
    """Words what bases of other packages a config that cannot be read asks for.

    mmengine answers a misspelt or missing one of them with a bare assertion.

    Args:
        file (Path): The config.

    Returns:
        str: To be added to the message; empty if it asks for none.
    """
    bases = re.findall(r'[\'"](\w+::[^\'"]*)[\'"]', file.read_text(errors='replace'))
    if not bases:
        return ''
    return (
        f' (it asks for {", ".join(bases)}: PACKAGE::PATH is a config that is installed with a '
        'package of OpenMMLab, mmdet or mmseg; others are named by their path)'
    )


def train(args: argparse.Namespace) -> None:
    """Trains as the flags of ``tools/train.py`` say.

    Args:
        args (Namespace): Parsed flags.

    Raises:
        PreflightError: If something is missing that the user can provide.
    """
    register_safe_globals()
    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    require_loader(cfg, 'train')
    if args.seed is not None:
        if not 0 <= args.seed <= MAX_SEED:
            raise PreflightError(f'--seed {args.seed}: has to be in 0..{MAX_SEED}')
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=args.seed)
    if args.amp:
        enable_amp(cfg)
    if args.compile:
        enable_compilation(cfg)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    resume = args.resume
    if resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'
    if resume is not None:
        choose_checkpoint_to_resume(cfg, resume)
    check_config(cfg, splits=('train', 'val'), pretrained=True)
    stored = stored_shapes(cfg.load_from) if cfg.get('load_from') else None
    require_target_folder('--work-dir', cfg.work_dir)
    runner = build_runner(cfg, args.local_rank)
    # a sharded run builds its model later; weights for another start may fit by a part only
    if cfg.get('resume') and isinstance(runner.model, torch.nn.Module):
        require_own_weights(runner.model, stored, cfg.load_from)
    runner.train()
    leave_group()


def test(args: argparse.Namespace) -> dict[str, float]:
    """Evaluates as the flags of ``tools/test.py`` say.

    Args:
        args (Namespace): Parsed flags.

    Returns:
        dict[str, float]: The metrics.

    Raises:
        PreflightError: If something is missing that the user can provide.
    """
    register_safe_globals()
    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    require_loader(cfg, 'test')
    task = recognise_task(cfg)
    if '://' not in args.checkpoint and not os.path.isfile(args.checkpoint):
        raise PreflightError(missing_checkpoint(args.checkpoint))
    cfg.load_from = args.checkpoint
    cfg.resume = False
    # what a strategy shards, gradients and optimizer states, a test does not have
    cfg.pop('strategy', None)
    check_config(cfg, splits=('test',), pretrained=False)
    stored = stored_shapes(args.checkpoint)
    if args.tta:
        enable_tta(cfg, task)
    if args.compile:
        enable_compilation(cfg)
    # these make the folders they write to, so they come last
    dump = plan_output(cfg, task, args.out)
    if args.show or args.show_dir:
        enable_pictures(cfg, task, args.show, args.show_dir, args.wait_time)
    require_target_folder('--work-dir', cfg.work_dir)
    runner = build_runner(cfg, args.local_rank)
    require_own_weights(runner.model, stored, args.checkpoint)
    if dump is not None:
        runner.test_evaluator.metrics.append(dump)
    metrics = runner.test()
    leave_group()
    return metrics


def require_loader(cfg: Config, split: str) -> None:
    """Checks that a config says what to train or test on.

    Args:
        cfg (Config): The whole config.
        split (str): ``'train'`` or ``'test'``.

    Raises:
        PreflightError: If it does not.
    """
    if cfg.get(f'{split}_dataloader') is None:
        raise PreflightError(f'{cfg.filename} has no {split}_dataloader')


def build_runner(cfg: Config, local_rank: int = 0) -> Runner | FlexibleRunner:
    """Builds the Runner of a prepared config, on CUDA or on the CPU, in one or more processes.

    A config's ``strategy`` is for several processes; one process has nobody to share with.

    Args:
        cfg (Config): The whole config; changed in place where the machine asks for it.
        local_rank (int): Number of this process on its machine, unless the launcher tells it by
            ``LOCAL_RANK``. Defaults to 0.

    Returns:
        Runner | FlexibleRunner: Not yet started; the latter if a strategy trains.

    Raises:
        PreflightError: If the launcher does not work on this machine.
    """
    if not torch.cuda.is_available() and is_amp(cfg):
        enable_amp(cfg)  # mmengine's own wrapper refuses to train on a CPU
    if cfg.launcher == 'none':
        cfg.pop('strategy', None)
    else:
        os.environ.setdefault('LOCAL_RANK', str(local_rank))
        if not torch.cuda.is_available():
            distribute_on_cpu(cfg)
    runner = FlexibleRunner if cfg.get('strategy') else Runner
    return runner.from_cfg(cfg)


def distribute_on_cpu(cfg: Config) -> None:
    """Makes a config train by several processes without CUDA.

    mmengine would ask for a CUDA device, pass one to DistributedDataParallel, and keep
    synchronised batch norms, which do not train on a CPU.
    """
    if cfg.launcher != 'pytorch':
        raise PreflightError(
            f'--launcher {cfg.launcher} needs CUDA, which this machine or this '
            'torch lacks; on CPUs use torchrun and --launcher pytorch'
        )
    missing = [
        name
        for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
        if name not in os.environ
    ]
    if missing:
        raise PreflightError(
            '--launcher pytorch expects to be started by torchrun, as in '
            f'tools/dist_train.sh ({", ".join(missing)} not set)'
        )
    if not is_distributed():
        torch.distributed.init_process_group('gloo')
    wrapper = cfg.setdefault(
        'model_wrapper_cfg',
        ConfigDict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        ),
    )
    wrapper.device_ids = None
    cfg.model = without_sync_norm(cfg.model)


def leave_group() -> None:
    """Ends the process group, if there is one, as torch asks for before a process exits."""
    if is_distributed():
        torch.distributed.destroy_process_group()


def without_sync_norm(model: Any) -> Any:
    """Returns a copy of a model config with plain in place of synchronised batch norm."""
    if isinstance(model, Mapping):
        changed = {key: without_sync_norm(value) for key, value in model.items()}
        if changed.get('type') in SYNC_NORMS:
            changed['type'] = 'BN'
        return ConfigDict(changed)
    if isinstance(model, (list, tuple)):
        return type(model)(without_sync_norm(value) for value in model)
    return model


def is_amp(cfg: Config) -> bool:
    """Tells whether a config trains in mixed precision of mmengine's."""
    return (cfg.get('optim_wrapper') or {}).get('type') == 'AmpOptimWrapper'


def enable_amp(cfg: Config) -> None:
    """Switches to mixed precision: float16 with loss scaling on CUDA, bfloat16 on the CPU.

    Not bfloat16 on CUDA, because mmcv's operators have no kernels for it.
    """
    wrapper = cfg.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise PreflightError(f'--amp replaces OptimWrapper, but the config has {wrapper.type!r}')
    if torch.cuda.is_available():
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
        return
    wrapper.type = 'attnpool_backbones.CPUAmpOptimWrapper'
    for key in ('loss_scale', 'dtype', 'use_fsdp'):
        wrapper.pop(key, None)


def enable_compilation(cfg: Config) -> None:
    """Compiles the backbone."""
    hook = dict(type='attnpool_backbones.CompileBackboneHook')
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scales the learning rate by the batch size over that of the recipe."""
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise PreflightError(
            f'--auto-scale-lr: {cfg.filename} does not say for which batch size '
            'its learning rate is meant, add '
            'auto_scale_lr = dict(base_batch_size=16)'
        )
    cfg.auto_scale_lr.enable = True


def choose_checkpoint_to_resume(cfg: Config, resume: str) -> None:
    """Resolves ``--resume auto`` or ``--resume PATH`` into ``load_from`` and the seed.

    Without a checkpoint in the work folder ``auto`` starts from the beginning, so that one command
    serves the first start and every restart.
    """
    checkpoint = find_resumable_checkpoint(cfg.work_dir) if resume == 'auto' else resume
    cfg.resume = checkpoint is not None
    if checkpoint is None:
        return
    if '://' not in checkpoint:
        if not os.path.isfile(checkpoint):
            raise PreflightError(missing_checkpoint(checkpoint))
        if not is_resumable(Path(checkpoint)):
            raise PreflightError(
                f'cannot resume from {checkpoint}: it is damaged, or not a '
                'checkpoint of a training (only weights?)'
            )
        # mmengine restores the seed too late for the sampler, which is built before
        randomness = dict(cfg.get('randomness') or {})
        if randomness.get('seed') is None:
            cfg.randomness = dict(randomness, seed=stored_seed(checkpoint))
    cfg.load_from = checkpoint


def missing_checkpoint(path: str) -> str:
    """Words the message about a checkpoint that is not there, with those that are."""
    file = Path(path).absolute()
    folder = file if file.is_dir() else file.parent
    lines = [
        f'{file} is a folder, not a checkpoint'
        if file.is_dir()
        else f'checkpoint not found: {file}'
    ]
    there = sorted(file.name for file in folder.glob('*.pth')) if folder.is_dir() else []
    if there:
        lines.append(f'that folder has: {", ".join(there)}')
    elif folder == file:
        lines.append('it has no .pth files')
    elif not folder.is_dir():
        lines.append(
            'its folder does not exist either; training writes checkpoints to work_dirs/CONFIG_NAME'
        )
    return '\n'.join(lines)


def enable_pictures(
    cfg: Config, task: str, show: bool, show_dir: str | None, wait_time: float
) -> None:
    """Makes a test draw its predictions.

    Args:
        cfg (Config): Changed in place.
        task (str): ``'mmdet'`` or ``'mmseg'``.
        show (bool): Whether to open windows.
        show_dir (str | None): Folder for the pictures.
        wait_time (float): Seconds that a window stays.

    Raises:
        PreflightError: If the folder cannot be written to.
    """
    hook = cfg.default_hooks.setdefault('visualization', ConfigDict(type=VISUALIZATION_HOOKS[task]))
    hook.draw = True
    if show:
        hook.show = True
        hook.wait_time = wait_time
    if show_dir is None:
        return
    show_dir = os.path.abspath(show_dir)
    require_target_folder('--show-dir', show_dir)
    if task == 'mmdet':
        # an absolute folder is taken as it is, a relative one is put into the run's folder
        hook.test_out_dir = show_dir
    else:
        hook.interval = 1
        cfg.visualizer.save_dir = show_dir


def enable_tta(cfg: Config, task: str) -> None:
    """Wraps the model and the test pipeline for test-time augmentation.

    Detection has a default, horizontal flip, when the config does not describe its own;
    segmentation takes scales and flips from the config's ``tta_pipeline``.

    Raises:
        PreflightError: If a segmentation config has no ``tta_pipeline``.
    """
    dataset = cfg.test_dataloader.dataset
    while dataset.get('dataset') is not None:
        dataset = dataset.dataset
    if task == 'mmdet':
        # needs mmdet, so the registry does not import it for everybody
        import_module('attnpool_backbones.engine.instance_tta')
        cfg.setdefault(
            'tta_model',
            ConfigDict(
                type='DetTTAModel',
                tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
            ),
        )
        if cfg.tta_model.type == 'DetTTAModel':
            cfg.tta_model.type = 'attnpool_backbones.InstanceTTAModel'
        cfg.setdefault('tta_pipeline', flip_pipeline(dataset.pipeline))
    elif 'tta_pipeline' not in cfg:
        raise PreflightError(
            f'--tta: {cfg.filename} has no tta_pipeline; '
            'configs/_base_/datasets/ade20k_512x512.py shows one'
        )
    else:
        cfg.setdefault('tta_model', ConfigDict(type='SegTTAModel'))
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def flip_pipeline(pipeline: list) -> list:
    """Turns a detection test pipeline into one that gives an image and its mirror image."""
    packing = deepcopy(pipeline[-1])
    packing.meta_keys = (
        'img_id',
        'img_path',
        'ori_shape',
        'img_shape',
        'scale_factor',
        'flip',
        'flip_direction',
    )
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    return [*deepcopy(pipeline[:-1]), ConfigDict(type='TestTimeAug', transforms=[flips, [packing]])]


def plan_output(cfg: Config, task: str, out: str | None) -> DumpResults | None:
    """Plans where the predictions of a test go.

    Args:
        cfg (Config): Changed in place when segmentation maps go to a folder.
        task (str): ``'mmdet'`` or ``'mmseg'``.
        out (str | None): A pickle file, or for segmentation a folder for PNG files.

    Returns:
        DumpResults | None: What has to join the evaluator's metrics.

    Raises:
        PreflightError: If detections are to go elsewhere than to a pickle file, or nothing can be
            written there.
    """
    if out is None:
        return None
    if out.endswith(('.pkl', '.pickle')):
        require_target_file('--out', out)
        if task == 'mmdet':
            from mmdet.evaluation import DumpDetResults

            return DumpDetResults(out_file_path=out)
        return DumpResults(out_file_path=out)
    if task == 'mmdet':
        raise PreflightError(f'--out {out}: detections are written to a .pkl or .pickle file')
    require_target_folder('--out', out)
    evaluators = cfg.test_evaluator
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        evaluator.output_dir = out
        evaluator.keep_results = True
    return None
