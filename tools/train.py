"""Trains a detector or a segmentor; the config tells which.

python tools/train.py configs/patchconvnet/mask-rcnn_patchconvnet-s60_fpn_ms-3x_coco.py
"""

import argparse

from attnpool_backbones.command_line import exit_command, given_name


def main() -> None:
    from attnpool_backbones.launching.launch import train
    from attnpool_backbones.launching.options import add_common_arguments
    from attnpool_backbones.launching.training_options import add_training_arguments

    parser = argparse.ArgumentParser(description='Trains a detector or a segmentor.')
    parser.add_argument('config', type=given_name, help='config file')
    add_common_arguments(parser)
    add_training_arguments(parser)
    train(parser.parse_args())


if __name__ == '__main__':
    exit_command(main, 'the same command with --resume auto goes on from the last checkpoint')
