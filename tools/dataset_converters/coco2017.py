"""Unpacks COCO 2017 from its official archives and checks that all of it is there.

    python tools/dataset_converters/coco2017.py DOWNLOADS

DOWNLOADS is the folder with train2017.zip, val2017.zip and annotations_trainval2017.zip. An
interrupted call is continued by the next one; a complete data set is only checked.
"""

import argparse
import sys
from pathlib import Path

from attnpool_backbones.command_line import UserError, run_command


def main() -> None:
    from attnpool_backbones.datasets import coco2017
    from attnpool_backbones.datasets.byte_progress import byte_progress
    from attnpool_backbones.datasets.records import COCO

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('downloads', type=Path, help='folder with the three zip files')
    parser.add_argument(
        '--out-dir', type=Path, default=Path('data/coco'), help='default: %(default)s'
    )
    args = parser.parse_args()
    try:
        with byte_progress('COCO 2017') as progress:
            coco2017.prepare(args.downloads, args.out_dir, progress=progress)
    except KeyboardInterrupt:
        raise UserError('stopped; the same command goes on from here') from None
    images = ' and '.join(f'{count} {split}' for split, count in COCO.images.items())
    print(f'{args.out_dir}: complete, {images} images, {COCO.classes} classes')


if __name__ == '__main__':
    sys.exit(run_command(main))
