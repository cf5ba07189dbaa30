"""Finds all that is wrong with the images and labels of a folder or of a config.

    attnpool verify photos                    labels of any format that can be trained on
    attnpool verify photos --masks            masks for segmentation
    attnpool verify CONFIG --splits train     exactly what a config trains and tests on

The exit code is 0 when nothing is wrong, 1 when something is, 2 when it could not be checked.
"""

import argparse

from attnpool_backbones.cli.own_data_arguments import (
    add_own_data_arguments,
    choose_any_model,
    request_of,
)
from attnpool_backbones.command_line import MAX_PROCESSES, given_name, is_config, whole_number
from attnpool_backbones.machine import usable_cores

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``attnpool verify``."""
    parser.add_argument(
        'source', type=given_name, metavar='FOLDER|CONFIG', help='own data, or a config file'
    )
    parser.add_argument('--masks', action='store_true', help='of a folder, look at masks of images')
    parser.add_argument(
        '--splits', nargs='+', choices=['train', 'val', 'test'], default=['train', 'val', 'test'],
        help='of a config (default: all)',
    )  # fmt: skip
    parser.add_argument(
        '--workers', type=whole_number(1, MAX_PROCESSES), default=min(8, usable_cores()),
        help='processes that read images (default: %(default)s)',
    )  # fmt: skip
    add_own_data_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Carries out ``attnpool verify``; 1 if something is wrong."""
    import sys
    import tempfile

    from attnpool_backbones.datasets.verification import verify
    from attnpool_backbones.launching.config import load_config
    from attnpool_backbones.own_data.preparing import BrokenLabels, list_problems, prepare

    if is_config(args.source):
        report = verify(load_config(args.source), args.splits, args.workers)
        looked_at = ', '.join(f'{count} of {split}' for split, count in report.images.items())
        if report.problems:
            print(list_problems(args.source, report.problems))
            return 1
        print(f'nothing is wrong with the images ({looked_at}) and their annotations')
        return 0
    opened = choose_any_model(args, args.masks)
    with tempfile.TemporaryDirectory() as folder:
        request = request_of(args, work_dir=f'{folder}/run', weights='none')
        try:
            prepared = prepare(request, opened=opened)
        except BrokenLabels as error:
            print(error, file=sys.stdout)
            return 1
    print(f'nothing is wrong with {args.source}: {", ".join(prepared.cfg.classes)}')
    return 0
