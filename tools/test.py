"""Evaluates a checkpoint of a detector or a segmentor; the config tells which.

python tools/test.py CONFIG work_dirs/CONFIG_NAME/epoch_36.pth --show-dir predictions
"""

import argparse

from attnpool_backbones.command_line import exit_command, given_name


def main() -> None:
    from attnpool_backbones.launching.launch import test
    from attnpool_backbones.launching.options import add_common_arguments, add_test_arguments

    parser = argparse.ArgumentParser(description='Evaluates a detector or a segmentor.')
    parser.add_argument('config', type=given_name, help='config file')
    parser.add_argument('checkpoint', type=given_name, help='checkpoint file or URL')
    add_common_arguments(parser)
    add_test_arguments(parser)
    test(parser.parse_args())


if __name__ == '__main__':
    exit_command(main)
