"""Makes the built-in data, trains and evaluates a detector and a segmentor, shows what they see.

attnpool quickstart
"""

import argparse
from pathlib import Path

from attnpool_backbones.command_line import given_place

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``attnpool quickstart``."""
    parser.add_argument(
        '--work-dir',
        type=given_place,
        default=Path('work_dirs/quickstart'),
        help='folder for checkpoints, the table and the pictures; remove it to start afresh, an '
        'interrupted run goes on where it was (default: %(default)s)',
    )
    parser.add_argument(
        '--publish',
        action='store_true',
        help='in a clone: put the table and the pictures into README.md and docs/quickstart',
    )


def run(args: argparse.Namespace) -> None:
    """Carries out ``attnpool quickstart``."""
    from attnpool_backbones.command_line import UserError
    from attnpool_backbones.compatibility import check_environment

    check_environment('det', 'seg', 'scenes', 'report')
    from rich.console import Console
    from rich.table import Table

    from attnpool_backbones.experiments import quickstart
    from attnpool_backbones.experiments.quickstart_pages import publish
    from attnpool_backbones.launching.targets import require_target_folder

    if args.publish and not Path('docs/quickstart').is_dir():
        raise UserError(f'--publish works in a clone of attnpool_backbones, not in {Path.cwd()}')
    require_target_folder('--work-dir', str(args.work_dir))
    results = quickstart.run(args.work_dir, lambda line: print(line, flush=True))

    table = Table(title='Quickstart on digit scenes (validation)')
    for column in quickstart.COLUMNS:
        table.add_column(
            column, justify='right' if column in ('parameters', 'MACs', 'minutes') else 'left'
        )
    for r in results:
        table.add_row(*quickstart.cells(r, emphasis=''))
    Console().print(table)
    print('the same numbers again; with --report FOLDER a page of what is wrong, too:')
    for command in dict.fromkeys(r.command for r in results):
        print(f'  {command}')
    print('table and pictures:')
    for name in ('results.md', *quickstart.PICTURES):
        print(f'  {args.work_dir / name}')
    if args.publish:
        publish(args.work_dir, Path.cwd())
