"""Evaluates a checkpoint of a detector or a segmentor; the config tells which.

python tools/test.py CONFIG work_dirs/CONFIG_NAME/epoch_36.pth --show-dir predictions
"""

import argparse

from attnpool_backbones.command_line import exit_command


def main() -> None:
    from attnpool_backbones.launching.launch import test
    from attnpool_backbones.launching.options import add_common_arguments

    parser = argparse.ArgumentParser(description='Evaluates a detector or a segmentor.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    add_common_arguments(parser)
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='write the predictions to a .pkl file; segmentation maps also to a '
        'folder, as PNG files',
    )
    parser.add_argument('--show', action='store_true', help='show predictions in windows')
    parser.add_argument('--show-dir', metavar='FOLDER', help='write pictures of the predictions')
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        metavar='SECONDS',
        help='how long a window of --show stays (default: 2)',
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    test(parser.parse_args())


if __name__ == '__main__':
    exit_command(main)
