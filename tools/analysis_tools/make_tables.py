"""Writes the metafiles and the tables of all configs, or checks that they are up to date.

python tools/analysis_tools/make_tables.py
python tools/analysis_tools/make_tables.py --check
"""

import argparse
import sys
from pathlib import Path

from attnpool_backbones.command_line import UserError, run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Completes configs/*/metafile.yml and renders them into configs/*/README.md '
        'and docs/results.md, between the comments <!-- configs --> and <!-- /configs -->. What is '
        'published and what was measured is kept in the metafiles by hand; parameters and MACs are '
        'counted for configs that have none there yet (seconds each, without weights or data).'
    )
    parser.add_argument(
        '--check', action='store_true', help='write nothing; fail and name the files that are stale'
    )
    parser.add_argument(
        '--count-all',
        action='store_true',
        help='count the parameters and MACs of all configs again (minutes), after models changed',
    )
    args = parser.parse_args()

    from attnpool_backbones.compatibility import check_environment

    check_environment('det', 'seg')
    from attnpool_backbones.zoo.tables import make_outputs

    root = Path.cwd()
    if not (root / 'configs' / '_base_').is_dir():
        raise UserError(f'run this in a clone of attnpool_backbones, not in {root}')
    outputs = make_outputs(root, args.count_all, lambda line: print(line, flush=True))
    stale = [output for output in outputs if not output.is_current()]
    names = [str(output.path.relative_to(root)) for output in stale]
    if args.check and stale:
        raise UserError(
            f'stale: {", ".join(names)}; call python tools/analysis_tools/make_tables.py'
        )
    for output, name in zip(stale, names, strict=True):
        output.write()
        print(f'wrote {name}')
    if not stale:
        print(f'all {len(outputs)} files are up to date')


if __name__ == '__main__':
    sys.exit(run_command(main))
