"""Tries which models of mmdet and mmseg build and run with the operators that are installed.

python tools/analysis_tools/try_models.py            # goes on where it was stopped
python tools/analysis_tools/try_models.py --again 'needs lap'  # once lap is installed
python tools/analysis_tools/try_models.py --publish  # and writes the table of docs/compatibility.md
"""

import argparse
import sys
from pathlib import Path

from attnpool_backbones.command_line import UserError, given_place, run_command, whole_number

LIBRARIES = ('mmdet', 'mmseg')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Builds the models of the configs that the wheels of mmdet and mmseg ship, '
        'and predicts once with random weights. Configs whose models have the same parts, in '
        'whatever sizes, are one structure; the smallest is tried. This takes about an hour on '
        'two cores; what was tried is kept.'
    )
    parser.add_argument('libraries', nargs='*', metavar='LIBRARY', default=list(LIBRARIES),
                        help='mmdet, mmseg (default: both)')  # fmt: skip
    parser.add_argument('--out', type=given_place, default=Path('docs/compatibility/models.jsonl'),
                        help='file of results (default: %(default)s)')  # fmt: skip
    parser.add_argument('--limit', type=whole_number(1),
                        help='try no more than so many of each library')  # fmt: skip
    parser.add_argument('--again', metavar='REGEX',
                        help='try again what failed for a reason that this finds')  # fmt: skip
    parser.add_argument('--seconds', type=whole_number(1), default=240,
                        help='how long a model may take (default: %(default)s)')  # fmt: skip
    parser.add_argument('--publish', action='store_true',
                        help='write the table into docs/compatibility.md')  # fmt: skip
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    from attnpool_backbones.launching.targets import require_target_file
    from attnpool_backbones.mmcv_operators import survey

    for library in args.libraries:
        if library not in LIBRARIES:
            raise UserError(f'{library[:80]!r} is none of {", ".join(LIBRARIES)}')
    require_target_file('--out', str(args.out))
    for library in args.libraries:
        survey.try_structures(
            library,
            args.out,
            lambda line: print(line, flush=True),
            args.limit,
            args.again,
            args.seconds,
        )
    text = survey.report(survey.read_results(args.out))
    print(text, end='')
    if args.publish:
        survey.publish(Path('docs/compatibility.md'), text)


if __name__ == '__main__':
    sys.exit(run_command(main))
