"""Makes the data, trains and evaluates a detector and a segmentor, shows a table and pictures.

python tools/quickstart.py
"""

import argparse
import sys
from pathlib import Path

from attnpool_backbones.command_line import UserError, run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Trains a nano PatchConvNet under Mask R-CNN and UperNet on the built-in digit '
        'scenes, evaluates both and draws what they see. An interrupted run goes on where it was.'
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/quickstart'),
        help='folder for checkpoints, the table and the pictures; remove it to start afresh '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--publish',
        action='store_true',
        help='put the table and the pictures into README.md and docs/quickstart',
    )
    args = parser.parse_args()

    from attnpool_backbones.compatibility import check_environment

    check_environment('det', 'seg', 'scenes', 'report')
    from rich.console import Console
    from rich.table import Table

    from attnpool_backbones.experiments.quickstart import PICTURES, publish, run

    if not Path('configs/_base_').is_dir():
        raise UserError(f'run this in a clone of attnpool_backbones, not in {Path.cwd()}')
    results = run(args.work_dir, lambda line: print(line, flush=True))

    table = Table(title='Quickstart on digit scenes (validation)')
    for column in ('task', 'model', 'result (%)', 'parameters', 'MACs', 'minutes'):
        table.add_column(column, justify='right' if column[0] in 'pMm' else 'left')
    for r in results:
        metrics = '\n'.join(f'{k} {v:.1f}' for k, v in (r.metrics | r.notes).items())
        size = f'{r.parameters / 1e6:.2f} M', f'{r.macs / 1e9:.2f} G', f'{r.minutes:.1f}'
        table.add_row(r.name, r.model, metrics, *size)
    console = Console()
    console.print(table)
    print('the same numbers again:')
    for command in dict.fromkeys(r.command for r in results):
        print(f'  {command}')
    print('table and pictures:')
    for name in ('results.md', *PICTURES):
        print(f'  {args.work_dir / name}')
    if args.publish:
        publish(args.work_dir, Path.cwd())


if __name__ == '__main__':
    sys.exit(run_command(main))
