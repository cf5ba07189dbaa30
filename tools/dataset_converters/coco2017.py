"""Unpacks COCO 2017 from its official archives and checks that all of it is there.

    python tools/dataset_converters/coco2017.py DOWNLOADS

DOWNLOADS is the folder with train2017.zip, val2017.zip and annotations_trainval2017.zip. An
interrupted call is continued by the next one; a complete data set is only checked.
"""

import sys

from attnpool_backbones.command_line import run_command


def main() -> None:
    from attnpool_backbones.datasets.coco2017 import prepare
    from attnpool_backbones.datasets.preparing_command import run_preparation
    from attnpool_backbones.datasets.records import COCO

    run_preparation(__doc__, COCO, prepare, 'data/coco', 'the three zip files')


if __name__ == '__main__':
    sys.exit(run_command(main))
