"""From flags to a running Runner, for detection and segmentation alike.

What ``tools/train.py`` and ``tools/test.py`` do is here; they only parse flags. There is one
direction: read the config, apply the flags, check everything once, build, run.
"""

import argparse
import logging
import os
from contextlib import nullcontext

from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner
from torch import nn

from attnpool_backbones.checkpoints.door import open_door
from attnpool_backbones.command_line import MAX_SEED, UserError
from attnpool_backbones.config_tasks import recognise_task
from attnpool_backbones.config_types import type_name
from attnpool_backbones.datasets.config_paths import require_loader
from attnpool_backbones.engine.batch_source import with_replacements
from attnpool_backbones.engine.input_limits_hook import InputLimitsHook
from attnpool_backbones.engine.load_guard_hook import LoadGuardHook
from attnpool_backbones.engine.work_folder_lock import claimed
from attnpool_backbones.launching.checkpoint_check import require_own_weights, stored_classes
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.config_errors import explained, started
from attnpool_backbones.launching.config_keys import require_known_keys, require_shapes
from attnpool_backbones.launching.data_check import build_loops
from attnpool_backbones.launching.devices import (
    enable_amp,
    fit_to_devices,
    is_first_process,
    join_group,
    leave_group,
    meeting,
    require_same_start,
    require_shared_folder,
)
from attnpool_backbones.launching.loaders import fit_loaders
from attnpool_backbones.launching.model_check import require_classes, require_fitting_parts
from attnpool_backbones.launching.outputs import (
    dump_predictions,
    enable_pictures,
    enable_report,
    is_pickle,
    write_label_maps,
)
from attnpool_backbones.launching.preflight import check_everything
from attnpool_backbones.launching.resuming import choose_checkpoint_to_resume, out_dir_of
from attnpool_backbones.launching.run_plan import RunPlan
from attnpool_backbones.launching.runners import QuietFlexibleRunner, QuietRunner, QuietTester
from attnpool_backbones.launching.safeguards import add_safeguards
from attnpool_backbones.launching.training_options import apply_training_options, set_hook
from attnpool_backbones.launching.tta import enable_tta

__all__ = ['build_runner', 'plan_test', 'plan_training', 'run_training', 'test', 'train']


def train(args: argparse.Namespace) -> str:
    """Trains as the flags of ``tools/train.py`` say.

    Args:
        args: Parsed flags.

    Returns:
        The work folder.

    Raises:
        UserError: If something is missing that the user can provide.
    """
    plan = plan_training(args)
    with explained(plan.cfg, 'the run'):
        check_everything(plan)
    run_training(plan, args.local_rank)
    return plan.cfg.work_dir


def run_training(plan: RunPlan, local_rank: int = 0) -> None:
    """Trains as the only writer of the work folder.

    Args:
        plan: The checked run.
        local_rank: As :func:`build_runner` takes it. Default: 0.

    Raises:
        UserError: If the checkpoint is not the model's, or something goes wrong on the way that the
            user can put right.
        Stopped: After a signal, when the state is saved.
    """
    with claimed(plan.cfg.work_dir) if is_first_process(plan.cfg.launcher) else nullcontext():
        runner = build_runner(plan.cfg, local_rank)
        require_same_start(plan.cfg)
        check_model(plan, runner)
        with started(plan.cfg, runner):
            runner.train()
    del runner
    leave_group()


def test(args: argparse.Namespace) -> dict[str, float]:
    """Evaluates as the flags of ``tools/test.py`` say.

    Args:
        args: Parsed flags.

    Returns:
        The metrics.

    Raises:
        UserError: If something is missing that the user can provide.
    """
    plan = plan_test(args)
    with explained(plan.cfg, 'the run'):
        check_everything(plan)
    runner = build_runner(plan.cfg, args.local_rank, tests=True)
    check_model(plan, runner)
    runner.test_loop.dataloader = with_replacements(runner.test_loop.dataloader)
    with started(plan.cfg, runner):
        metrics = runner.test()
    del runner
    leave_group()
    return metrics


def read_config(args: argparse.Namespace, split: str) -> Config:
    """Reads a config that says what to train or test on.

    Args:
        args: Parsed flags.
        split: ``'train'`` or ``'test'``.

    Returns:
        The whole config.

    Raises:
        UserError: If it cannot be read or does not say it.
    """
    open_door()
    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    require_shapes(cfg)
    require_loader(cfg, split)
    # before flags change what the config says
    require_known_keys(cfg)
    # also for configs that have none of this package's runtime settings
    hooks = list(cfg.get('custom_hooks') or [])
    present = set(map(type_name, hooks))
    own = [hook.__name__ for hook in (LoadGuardHook, InputLimitsHook)]
    missing = [dict(type=f'attnpool_backbones.{name}') for name in own if name not in present]
    cfg.custom_hooks = [*missing, *hooks]
    return cfg


def plan_training(args: argparse.Namespace) -> RunPlan:
    """Applies the flags of ``tools/train.py``.

    Args:
        args: Parsed flags.

    Returns:
        The run, to be checked.

    Raises:
        UserError: If a flag does not fit the config.
    """
    cfg = read_config(args, 'train')
    with explained(cfg, 'the run'):
        return training_plan(cfg, args)


def training_plan(cfg: Config, args: argparse.Namespace) -> RunPlan:
    """Does what :func:`plan_training` does with a config."""
    if args.seed is not None:
        if not 0 <= args.seed <= MAX_SEED:
            raise UserError(f'--seed {args.seed}: has to be in 0..{MAX_SEED}')
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=args.seed)
    apply_training_options(cfg, args)
    if args.amp:
        enable_amp(cfg)
    if args.compile:
        enable_compilation(cfg)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    add_safeguards(cfg, args.checkpoint_every, args.wait_for_space)
    choose_checkpoint_to_resume(cfg, args.resume)
    skip_bad_data(cfg, args.max_bad)
    fit_loaders(cfg)
    fit_to_devices(cfg)
    folders = {'--work-dir': cfg.work_dir}
    out_dir = out_dir_of(cfg)
    if out_dir is not None and is_first_process(cfg.launcher):  # the others write nothing there
        folders['default_hooks.checkpoint.out_dir'] = out_dir
    return RunPlan(
        cfg,
        splits=('train', 'val'),
        starts=True,
        checkpoint_option='load_from',
        # weights for another start may fit by a part only
        whole_model=bool(cfg.get('resume')),
        max_bad=args.max_bad,
        folders=folders,
    )


def plan_test(args: argparse.Namespace) -> RunPlan:
    """Applies the flags of ``tools/test.py``.

    Args:
        args: Parsed flags.

    Returns:
        The run, to be checked.

    Raises:
        UserError: If a flag does not fit the config.
    """
    cfg = read_config(args, 'test')
    with explained(cfg, 'the run'):
        return evaluation_plan(cfg, args)


def evaluation_plan(cfg: Config, args: argparse.Namespace) -> RunPlan:
    """Does what :func:`plan_test` does with a config."""
    cfg.load_from, cfg.resume = args.checkpoint, False
    # what a strategy shards, gradients and optimizer states, a test does not have
    cfg.pop('strategy', None)
    plan = RunPlan(
        cfg,
        splits=('test',),
        starts=False,
        checkpoint_option='',
        whole_model=True,
        max_bad=args.max_bad,
    )
    if args.tta:
        enable_tta(cfg)
    if args.compile:
        enable_compilation(cfg)
    if args.out and is_pickle(args.out):
        dump_predictions(cfg, args.out)
        plan.files['--out'] = args.out
    elif args.out:
        write_label_maps(cfg, args.out)
        plan.folders['--out'] = args.out
    if args.show or args.show_dir:
        show_dir = args.show_dir and os.path.abspath(args.show_dir)
        enable_pictures(cfg, args.show, show_dir, args.wait_time)
        if show_dir:
            plan.folders['--show-dir'] = args.show_dir
    if args.report:
        model = getattr(args, 'exported', None) or args.checkpoint
        enable_report(cfg, args.report, f'{model} on the test data of {args.config}')
        plan.folders['--report'] = args.report
    plan.folders['--work-dir'] = cfg.work_dir
    skip_bad_data(cfg, args.max_bad)
    fit_loaders(cfg)
    fit_to_devices(cfg)
    return plan


def skip_bad_data(cfg: Config, max_bad: int) -> None:
    """Leaves out up to so many images that cannot be used."""
    if max_bad < 0:
        raise UserError(f'--max-bad {max_bad}: has to be 0 or more')
    set_hook(cfg, dict(type='attnpool_backbones.SkipBadDataHook', max_bad=max_bad))


def enable_compilation(cfg: Config) -> None:
    """Compiles the backbone."""
    hook = dict(type='attnpool_backbones.CompileBackboneHook')
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scales the learning rate by the batch size over that of the recipe."""
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise UserError(
            f'--auto-scale-lr: {cfg.filename} does not say for which batch size '
            'its learning rate is meant, add '
            'auto_scale_lr = dict(base_batch_size=16)'
        )
    cfg.auto_scale_lr.enable = True


def build_runner(cfg: Config, local_rank: int = 0, tests: bool = False) -> Runner | FlexibleRunner:
    """Builds the Runner of a config, on CUDA or on the CPU, in one or more processes.

    Args:
        cfg: The whole config; changed in place where the machine asks for it.
        local_rank: Number of this process on its machine, unless the launcher tells it. Default: 0.
        tests: Whether to write the config beside the log, not into the work folder. Default: False.

    Returns:
        Not yet started; a FlexibleRunner if a strategy trains.

    Raises:
        UserError: If the launcher does not work on this machine.
    """
    # a log file on a full disk must not fill the screen
    logging.raiseExceptions = False
    fit_to_devices(cfg)
    join_group(cfg, local_rank)
    trainer = QuietFlexibleRunner if cfg.get('strategy') else QuietRunner
    runner = QuietTester if tests else trainer
    # with CUDA the processes meet in there
    with explained(cfg, 'the run'), meeting():
        return runner.from_cfg(cfg)


def check_model(plan: RunPlan, runner: Runner | FlexibleRunner) -> None:
    """Checks what only the built model and the built data sets can tell.

    That the checkpoint is the model's own, that its parts fit together, that its heads have the
    classes of the data, that there is a batch, and that results of several processes can meet.

    Args:
        plan: The run.
        runner: Not yet started.

    Raises:
        UserError: If one of these is not so.
    """
    for note in plan.notes:
        runner.logger.warning(f'data: {note}')
    goes_on = plan.whole_model and recognise_task(plan.cfg) == 'mmengine'
    trained = stored_classes(plan.cfg.load_from) if goes_on else ()
    loaders = build_loops(runner, plan.splits, trained)
    require_shared_folder(runner.val_loop if plan.starts else runner.test_loop)
    # a sharded run builds its model later
    if not isinstance(runner.model, nn.Module):
        return
    if plan.whole_model:
        require_own_weights(runner.model, plan.stored_shapes, plan.cfg.load_from)
    for split, loader in loaders.items():
        require_classes(runner.model, loader.dataset, split)
    # a dataloader with a batch_sampler does not tell it
    batch_size = plan.cfg.train_dataloader.get('batch_size', 1) if 'train' in loaders else None
    require_fitting_parts(runner.model, plan.cfg, batch_size)
