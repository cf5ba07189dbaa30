"""Unpacks ADE20K (scene parsing) from its official archive and checks that all of it is there.

    python tools/dataset_converters/ade20k.py DOWNLOADS

DOWNLOADS is the folder with ADEChallengeData2016.zip. An interrupted call is continued by the next
one; a complete data set is only checked.
"""

import argparse
import sys
from pathlib import Path

from attnpool_backbones.command_line import UserError, run_command


def main() -> None:
    from attnpool_backbones.datasets import ade20k
    from attnpool_backbones.datasets.byte_progress import byte_progress
    from attnpool_backbones.datasets.records import ADE20K

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('downloads', type=Path, help='folder with the zip file')
    parser.add_argument(
        '--out-dir', type=Path, default=Path('data/ade'), help='default: %(default)s'
    )
    args = parser.parse_args()
    try:
        with byte_progress('ADE20K') as progress:
            ade20k.prepare(args.downloads, args.out_dir, progress=progress)
    except KeyboardInterrupt:
        raise UserError('stopped; the same command goes on from here') from None
    images = ' and '.join(f'{count} {split}' for split, count in ADE20K.images.items())
    print(f'{args.out_dir}: complete, {images} images, {ADE20K.classes} classes')


if __name__ == '__main__':
    sys.exit(run_command(main))
