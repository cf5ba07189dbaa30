"""Evaluates an exported file on the data of a config."""

import argparse
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_tasks import recognise_dense_task
from attnpool_backbones.config_types import find_type, type_name
from attnpool_backbones.datasets.building import innermost
from attnpool_backbones.datasets.config_paths import metrics_of
from attnpool_backbones.evaluation import ImageTagMetric, LocalisationMetric
from attnpool_backbones.inference.exported_facts import Facts
from attnpool_backbones.inference.exported_files import read_exported
from attnpool_backbones.inference.preparation import RESIZING
from attnpool_backbones.launching.config_errors import started
from attnpool_backbones.launching.data_check import build_loops
from attnpool_backbones.launching.launch import build_runner, plan_test
from attnpool_backbones.launching.outputs import set_metrics
from attnpool_backbones.launching.preflight import check_everything
from attnpool_backbones.registry import METRICS

__all__ = ['evaluate_exported']


def evaluate_exported(args: argparse.Namespace) -> dict[str, float]:
    """Evaluates a file with data, pipeline and evaluators of a config.

    Args:
        args: Flags of ``tools/test.py``; ``config`` is the config, ``exported`` the file.

    Returns:
        The metrics.

    Raises:
        UserError: If something is missing, or file and data do not belong together.
    """
    for option, unset in dict(tta=False, compile=False, launcher='none').items():
        if getattr(args, option, unset) != unset:
            raise UserError(f'--{option} is for models, not for exported files')
    _, facts = read_exported(args.exported)
    args.checkpoint = None
    # the logs of a file are not the run's
    path = Path(args.exported)
    args.work_dir = args.work_dir or os.path.join('work_dirs', f'{path.stem}_{path.suffix[1:]}')
    plan = plan_test(args)
    kinds = dict(mmdet='detection', mmseg='segmentation')
    task = kinds[recognise_dense_task(plan.cfg, 'a test of an exported file')]
    if facts.task != task:
        raise UserError(f'{args.exported} is for {facts.task}, {args.config} for {task}')
    _leave_out_tags(plan.cfg, args)
    _resize_for_the_file(plan.cfg, facts)
    check_everything(plan)
    # what changes weights (averages of them, another normalisation) finds none here
    plan.cfg.custom_hooks = [
        hook
        for hook in plan.cfg.custom_hooks
        if type_name(hook) in ('SkipBadDataHook', 'InputLimitsHook', 'ReportHook')
    ]
    plan.cfg.model = dict(type='attnpool_backbones.ExportedFile', file=str(args.exported))
    runner = build_runner(plan.cfg, tests=True)
    for loader in build_loops(runner, plan.splits).values():
        classes = tuple(loader.dataset.metainfo.get('classes') or ())
        if classes != facts.classes:
            raise UserError(
                f'the data of {args.config} have the classes {_few(classes)}, {args.exported} '
                f'tells {_few(facts.classes)}'
            )
    with started(plan.cfg, runner):
        return runner.test()


def _resize_for_the_file(cfg: Config, facts: Facts) -> None:
    """Lets a file see images as it does in ``attnpool predict``."""
    step = dict(type='attnpool_backbones.PrepareForFile', steps=facts.preparation.to_data())
    for dataset in innermost(cfg.test_dataloader.dataset):
        names = [type_name(entry) for entry in dataset.pipeline]
        pipeline = [
            e for e, name in zip(dataset.pipeline, names, strict=True) if name not in RESIZING
        ]
        first = next((i for i, name in enumerate(names) if name in RESIZING), 1)
        dataset.pipeline = [*pipeline[:first], step, *pipeline[first:]]


def _leave_out_tags(cfg: Config, args: argparse.Namespace) -> None:
    """Takes out the metrics of an image-level head, which a file has not, and says so."""
    metrics = metrics_of(cfg.get('test_evaluator'))
    left = [metric for metric in metrics if not _is_of_tags(metric)]
    if len(left) == len(metrics):
        return
    names = ', '.join(type_name(metric) for metric in metrics if metric not in left)
    if not left:
        raise UserError(
            f'{args.exported} tells no tags of images, and the test_evaluator of {args.config} '
            f'measures nothing else ({names}): test the model, not the file'
        )
    print(f'not measured, as {args.exported} tells no tags of images: {names}', flush=True)
    set_metrics(cfg, left)


def _is_of_tags(metric: Any) -> bool:
    kind = find_type(metric, METRICS)
    return isinstance(kind, type) and issubclass(kind, (ImageTagMetric, LocalisationMetric))


def _few(names: tuple[str, ...]) -> str:
    return ', '.join(names[:5]) + (f', ... ({len(names)})' if len(names) > 5 else '')
