"""Runs of `tools/train.py` and `tools/test.py` in this process, on a handful of small scenes."""

import argparse
import itertools
from pathlib import Path
from typing import Any

from attnpool_backbones.config_files import config_root
from attnpool_backbones.launching.launch import test, train

CONFIGS = {
    'det': config_root() / 'poolformer/mask-rcnn_poolformer-nano_slim-fpn_digit-scenes.py',
    'seg': config_root() / 'poolformer/upernet_poolformer-nano_slim_digit-scenes.py',
}
NUMBERS = itertools.count()

LOADERS = """
_base_ = {base!r}
root = {root!r}
loader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root=root))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
default_hooks = dict(logger=dict(interval=1))
"""
SCHEDULES = {
    'det': """
val_evaluator = dict(ann_file=root + '/annotations/instances_val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
model = dict(test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=5)))
""",
    'seg': """
train_cfg = dict(max_iters=2, val_interval=2)
""",
}


def write_config(folder: Path, task: str, root: Path, more: str = '') -> Path:
    """Writes a config of one epoch (or two iterations) on the scenes in a folder.

    Args:
        folder: Where to.
        task: 'det' or 'seg'.
        root: The scenes.
        more: Lines of a config based on it.

    Returns:
        The config with these lines.
    """
    base = folder / f'{task}_base.py'
    base.write_text(LOADERS.format(base=str(CONFIGS[task]), root=str(root)) + SCHEDULES[task])
    # mmengine keeps its logger and visualiser under the name of the file
    path = folder / f'case_{next(NUMBERS)}.py'
    path.write_text(f'_base_ = {str(base)!r}\n{more}\n')
    return path


def arguments(config: Path, **flags: Any) -> argparse.Namespace:
    """Returns flags as the command lines parse them."""
    defaults = dict(
        config=str(config),
        cfg_options=None,
        work_dir=str(config.with_suffix('')),
        launcher='none',
        local_rank=0,
        amp=False,
        compile=False,
        auto_scale_lr=False,
        resume=None,
        seed=0,
        max_bad=10,
        checkpoint_every=None,
        wait_for_space=False,
        out=None,
        show=False,
        show_dir=None,
        wait_time=0,
        tta=False,
        report=None,
    )
    return argparse.Namespace(**{**defaults, **flags})


def run_training(config: Path, **flags: Any) -> Path:
    """Trains, and returns the folder of the run."""
    args = arguments(config, **flags)
    train(args)
    return Path(args.work_dir)


def run_test(config: Path, checkpoint: Path, **flags: Any) -> dict[str, float]:
    """Tests a checkpoint, and returns the metrics."""
    return test(arguments(config, checkpoint=str(checkpoint), **flags))


def log_of(work_dir: Path) -> str:
    """Returns what the log files of a run say."""
    return ''.join(file.read_text() for file in sorted(work_dir.glob('*/*.log')))
