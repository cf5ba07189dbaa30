"""Unpacks ADE20K (scene parsing) from its official archive and checks that all of it is there.

    python tools/dataset_converters/ade20k.py DOWNLOADS

DOWNLOADS is the folder with ADEChallengeData2016.zip. An interrupted call is continued by the next
one; a complete data set is only checked.
"""

import sys

from attnpool_backbones.command_line import run_command


def main() -> None:
    from attnpool_backbones.datasets.ade20k import prepare
    from attnpool_backbones.datasets.preparing_command import run_preparation
    from attnpool_backbones.datasets.records import ADE20K

    run_preparation(__doc__, ADE20K, prepare, 'data/ade', 'the zip file')


if __name__ == '__main__':
    sys.exit(run_command(main))
