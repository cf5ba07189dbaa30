"""Checks the data sets that a config trains and tests on, and reports all that is wrong at once.

    python tools/misc/verify_dataset.py configs/poolformer/retinanet_poolformer-s12_fpn_1x_coco.py

Images go through the config's own pipeline and annotations through mmdet's own filters, so that
what training would drop, distort or fail at is found: unreadable images, wrong sizes, boxes and
masks that cannot be used, labels of no class, classes in another order, malformed entries
(docs/data.md has the list). The exit code is 0 when nothing is wrong, 1 when something is, and 2
when the check could not be made.
"""

import argparse
import sys

from attnpool_backbones.command_line import (
    MAX_PROCESSES,
    UserError,
    run_command,
    whole_number,
)
from attnpool_backbones.machine import usable_cores


def main() -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Table

    from attnpool_backbones.atomic_files import write_atomically
    from attnpool_backbones.datasets.verification import verify
    from attnpool_backbones.launching.config import load_config
    from attnpool_backbones.launching.options import CfgOptions
    from attnpool_backbones.launching.targets import require_target_file

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--splits',
        nargs='+',
        choices=['train', 'val', 'test'],
        default=['train', 'val', 'test'],
        help='which data sets of the config (default: all)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.dataset.data_root=FOLDER',
    )
    parser.add_argument(
        '--workers',
        type=whole_number(1, MAX_PROCESSES),
        default=min(8, usable_cores()),
        help='processes that read images (default: %(default)s)',
    )
    parser.add_argument(
        '--examples',
        type=whole_number(0, 10**9),
        default=3,
        help='how many cases of each kind are shown (default: %(default)s)',
    )
    parser.add_argument('--json', metavar='FILE', help='write all cases to a file')
    args = parser.parse_args()

    cfg = load_config(args.config, args.cfg_options)
    if args.json:
        require_target_file('--json', args.json)
    columns = (TextColumn('images'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task('', total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        report = verify(cfg, args.splits, args.workers, show)
    looked_at = ', '.join(f'{count} of {split}' for split, count in report.images.items())
    if report.problems:
        table = Table('what is wrong', 'cases', 'examples', show_lines=True)
        for kind, count in report.counts.items():
            cases = [problem for problem in report.problems if problem.kind == kind]
            examples = [f'{c.split}: {c.item} ({c.detail})' for c in cases[: args.examples]]
            if count > len(examples):
                examples.append('...')
            table.add_row(kind, str(count), escape('\n'.join(examples)))
        # a pipe has no width that a path should be broken at
        Console(width=None if sys.stdout.isatty() else 200).print(table)
        print(f'{len(report.problems)} problems; images looked at: {looked_at}')
    else:
        print(f'nothing is wrong with the images ({looked_at}) and their annotations')
    for note in report.notes[: args.examples]:
        print(f'note: {note.split}: {note.item}: {note.kind} ({note.detail})')
    if len(report.notes) > args.examples:
        print(f'note: {len(report.notes)} notes in all; --json FILE has them')
    if args.json:
        # after the findings are on screen: a disk may be full by now
        try:
            write_atomically(report.to_json().encode(), args.json)
        except OSError as error:
            raise UserError(f'--json {args.json}: {error}') from error
    if report.problems:
        raise SystemExit(1)


if __name__ == '__main__':
    sys.exit(run_command(main))
