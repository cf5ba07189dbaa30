"""Trains the nano size of every family on the digit scenes and compares them.

python tools/analysis_tools/accuracy_benchmark.py
"""

import argparse
import sys
from pathlib import Path

from attnpool_backbones.command_line import UserError, given_place, run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Trains the nano size of every family and of the baselines on the digit '
        'scenes, detection and segmentation, by one recipe, and writes a table (Markdown and CSV) '
        'and a picture. About five minutes a backbone on two CPU cores; an interrupted benchmark '
        'goes on where it was.'
    )
    parser.add_argument(
        '--work-dir',
        type=given_place,
        default=Path('work_dirs/benchmark'),
        help='folder for checkpoints, the table and the picture; remove it to start afresh '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--only', nargs='+', default=[], metavar='NAME', help='backbones, e.g. coatnet-nano'
    )
    parser.add_argument(
        '--publish',
        action='store_true',
        help='put the table and the picture into docs/benchmark, the results into '
        'the metafiles and the tables of the model zoo',
    )
    args = parser.parse_args()

    from attnpool_backbones.compatibility import check_environment

    check_environment('det', 'seg', 'scenes', 'report')
    from attnpool_backbones.experiments.accuracy_benchmark import markdown, publish, run
    from attnpool_backbones.launching.targets import writable_folder

    if not Path('configs/_base_').is_dir():
        raise UserError(f'run this in a clone of attnpool_backbones, not in {Path.cwd()}')
    with writable_folder('--work-dir', str(args.work_dir)):
        rows = run(args.work_dir, args.only, lambda line: print(line, flush=True))
    print(markdown(rows))
    for kind in ('md', 'csv', 'png'):
        print(f'  {args.work_dir / "results"}.{kind}')
    if args.publish:
        publish(args.work_dir, Path.cwd())


if __name__ == '__main__':
    sys.exit(run_command(main))
