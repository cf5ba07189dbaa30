"""Writes the config for a folder of images and labels, without training.

    attnpool config photos --backbone caformer_s18 --head mask-rcnn

The labels are recognised, checked and split as `attnpool train` does it.
"""

import argparse
import shlex
from pathlib import Path

from attnpool_backbones.cli.own_data_arguments import (
    add_own_data_arguments,
    add_plan_arguments,
    choose_model,
    prepare_with_progress,
    request_of,
)
from attnpool_backbones.command_line import (
    UserError,
    given_name,
    number_above_zero,
    whole_number,
)

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``attnpool config``."""
    from attnpool_backbones.launching.training_options import MAX_STAGES

    parser.add_argument('source', type=given_name, metavar='FOLDER', help='with images and labels')
    parser.add_argument(
        '--out', type=given_name, metavar='FILE', help='config to write (default: WORK_DIR.py)'
    )
    parser.add_argument(
        '--work-dir',
        type=given_name,
        help='of the training (default: work_dirs/FOLDER_HEAD_BACKBONE, with --out work_dirs/NAME '
        'of the file)',
    )
    parser.add_argument('--epochs', type=whole_number(1), help='passes over the data')
    parser.add_argument('--batch', type=whole_number(1), help='images of a step')
    parser.add_argument('--lr', type=number_above_zero, help='learning rate')
    parser.add_argument(
        '--freeze',
        type=whole_number(-1, MAX_STAGES),
        metavar='STAGES',
        help='stages that are not trained',
    )
    add_own_data_arguments(parser)
    add_plan_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Carries out ``attnpool config``."""
    from attnpool_backbones.launching.targets import require_target_file

    for option, name in (('--out', args.out), ('--work-dir', args.work_dir)):
        if name is not None and '://' in name:
            raise UserError(f'{option} {name}: is an address; name a place of this machine')
    if args.out is not None:
        require_target_file('--out', args.out)
        # where a training with this config goes; another config's labels stay as they are
        args.work_dir = args.work_dir or str(Path('work_dirs', Path(args.out).stem))
    read = choose_model(args)
    target = Path(args.out) if args.out else None
    prepared = prepare_with_progress(request_of(args), target=target, read=read)
    print(f'written: {prepared.config}')
    words = ('attnpool', 'train', str(prepared.config), '--work-dir', prepared.cfg.work_dir)
    print(f'train it with: {shlex.join(words)}')
