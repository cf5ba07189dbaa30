"""Trains the nano size of every family under every head and compares its exported files with it.

python tools/analysis_tools/exported_scores.py            # goes on where it was stopped
python tools/analysis_tools/exported_scores.py --publish  # and writes the table of docs/export.md
"""

import argparse
import sys
from pathlib import Path

from attnpool_backbones.command_line import UserError, given_place, run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Trains the nano size of every family on 64 small digit scenes under every '
        'head that can be exported, and evaluates the model, its ONNX file and the one of 8 bits '
        'on the same scenes. Half a minute a row on a CPU; what is finished is kept while the code '
        'stays the same.'
    )
    parser.add_argument('--work-dir', type=given_place, default=Path('work_dirs/exported_scores'),
                        help='folder of files and results; remove it to start afresh '
                        '(default: %(default)s)')  # fmt: skip
    parser.add_argument('--only', nargs='+', default=[], metavar='PATTERN',
                        help="rows, e.g. 'coatnet/*' '*/upernet' (default: all)")  # fmt: skip
    parser.add_argument('--no-times', action='store_true',
                        help='leave the times to a later call, on an idle machine')  # fmt: skip
    parser.add_argument('--publish', action='store_true',
                        help='write the table into docs/export.md')  # fmt: skip
    args = parser.parse_args()

    from attnpool_backbones.compatibility import check_environment

    check_environment('det', 'seg', 'scenes')
    from attnpool_backbones.experiments.exported_scores import STAGES, markdown, publish, run
    from attnpool_backbones.inference.extras import require_extra
    from attnpool_backbones.launching.targets import writable_folder

    require_extra('export', 'onnxscript')
    page = Path('docs/export.md')
    if args.publish and not page.is_file():
        raise UserError(f'run --publish in a clone of attnpool_backbones, not in {Path.cwd()}')
    stages = [stage for stage in STAGES if stage != 'times' or not args.no_times]
    with writable_folder('--work-dir', str(args.work_dir)):
        rows = run(args.work_dir, args.only, stages, lambda line: print(line, flush=True))
    print(markdown(rows), end='')
    if args.publish:
        publish(rows, page)


if __name__ == '__main__':
    sys.exit(run_command(main))
