"""Finds all that is wrong with the images and labels of a folder or of a config.

    attnpool verify photos                    labels of any format that can be trained on
    attnpool verify photos --masks            masks for segmentation
    attnpool verify CONFIG --splits train     exactly what a config trains and tests on

Of a config, images go through its own pipeline and annotations through mmdet's own filters, so that
what training would drop, distort or fail at is found (docs/data.md has the list). The exit code is
0 when nothing is wrong, 1 when something is, 2 when it could not be checked.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attnpool_backbones.cli.own_data_arguments import (
    add_own_data_arguments,
    choose_any_model,
    request_of,
    require_no_folder_flags,
)
from attnpool_backbones.command_line import (
    MAX_PROCESSES,
    UserError,
    given_name,
    is_config,
    whole_number,
)
from attnpool_backbones.machine import usable_cores
from attnpool_backbones.progress_bar import progress_bar

if TYPE_CHECKING:
    from attnpool_backbones.datasets.findings import Problem, Report
    from attnpool_backbones.own_data.folder import Folder

__all__ = ['add_arguments', 'run']

Progress = Callable[[int, int], None]
SPLITS = ('train', 'val', 'test')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``attnpool verify``."""
    from attnpool_backbones.launching.options import CfgOptions

    parser.add_argument(
        'source', type=given_name, metavar='FOLDER|CONFIG', help='own data, or a config file'
    )
    parser.add_argument('--masks', action='store_true', help='of a folder, look at masks of images')
    parser.add_argument(
        '--splits', nargs='+', choices=SPLITS,
        help='of a config (default: all)',
    )  # fmt: skip
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.dataset.data_root=FOLDER',
    )  # fmt: skip
    parser.add_argument(
        '--workers', type=whole_number(1, MAX_PROCESSES), default=min(8, usable_cores()),
        help='processes that read images (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--examples', type=whole_number(0, 10**9), default=20, metavar='N',
        help='cases of each kind that are listed (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument('--json', type=given_name, metavar='FILE', help='write all cases to a file')
    add_own_data_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Carries out ``attnpool verify``; 1 if something is wrong."""
    from attnpool_backbones.atomic_files import write_atomically
    from attnpool_backbones.datasets.verification import verify
    from attnpool_backbones.launching.config import load_config
    from attnpool_backbones.launching.targets import require_target_file
    from attnpool_backbones.own_data.label_problems import list_problems

    cfg = opened = None
    if is_config(args.source):
        require_no_folder_flags(args)
        cfg = load_config(args.source, args.cfg_options)
    elif args.splits is not None:
        raise UserError(
            f'--splits: for a config; of {args.source}, a folder, all images are looked at'
        )
    else:
        opened = choose_any_model(args, args.masks)
    if args.json is not None:
        require_target_file('--json', args.json)
    with progress_bar('images') as show:
        if cfg is not None:
            report = verify(cfg, args.splits or SPLITS, args.workers, show)
            notes = lines_of(report.notes, args.examples)
        else:
            report, notes = verify_folder(args, opened, show)
    looked_at = ', '.join(f'{count} of {split}' for split, count in report.images.items())
    if report.problems:
        print(list_problems(args.source, report.problems, args.examples))
        print(f'{len(report.problems)} problems; images looked at: {looked_at or "none"}')
    else:
        print(f'nothing is wrong with the images ({looked_at}) and their annotations')
    for note in notes:
        print(note)
    if args.json is not None:
        # after the findings are on screen: a disk may be full by now
        try:
            write_atomically(report.to_json().encode(), args.json)
        except OSError as error:
            raise UserError(f'--json {args.json}: {error}') from error
    return 1 if report.problems else 0


def verify_folder(
    args: argparse.Namespace, opened: 'Folder', progress: Progress
) -> tuple['Report', list[str]]:
    """Checks own data.

    Args:
        args: Parsed flags, a model chosen.
        opened: The folder.
        progress: Called with the number of images checked and of all images.

    Returns:
        What was found, and lines about what is no problem.
    """
    from attnpool_backbones.own_data.label_problems import BrokenLabels
    from attnpool_backbones.own_data.preparing import prepare

    with tempfile.TemporaryDirectory() as folder:
        request = request_of(args, work_dir=f'{folder}/run', weights='none')
        try:
            prepared = prepare(request, opened=opened, tell=lambda _: None, progress=progress)
        except BrokenLabels as error:
            return error.report, lines_of(error.report.notes, args.examples)
    return prepared.report, [*prepared.notes, f'classes: {", ".join(prepared.cfg.classes)}']


def lines_of(notes: Sequence['Problem'], shown: int) -> list[str]:
    """Words what may be meant so, in lines for the first ones."""
    lines = [f'note: {n.split}: {n.item}: {n.kind} ({n.detail})' for n in notes[:shown]]
    if len(notes) > shown:
        lines.append(f'note: {len(notes)} notes in all; --json FILE has them')
    return lines
