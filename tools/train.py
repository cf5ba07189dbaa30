"""Trains a detector or a segmentor; the config tells which.

python tools/train.py configs/patchconvnet/mask-rcnn_patchconvnet-s60_fpn_ms-3x_coco.py
"""

import argparse

from attnpool_backbones.command_line import exit_command


def main() -> None:
    from attnpool_backbones.launching.launch import train
    from attnpool_backbones.launching.options import add_common_arguments

    parser = argparse.ArgumentParser(description='Trains a detector or a segmentor.')
    parser.add_argument('config', help='config file')
    add_common_arguments(parser)
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: float16 on CUDA, bfloat16 on the CPU'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size over that of the recipe',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='auto|PATH',
        help='go on from a checkpoint; auto (the default without a value) takes '
        'the latest whole one in the work folder, or starts if there is none',
    )
    parser.add_argument(
        '--checkpoint-every',
        metavar='TIME',
        help='save the state by time too, as 10m or 2h, also in the middle of an epoch; only the '
        'last of these checkpoints is kept',
    )
    parser.add_argument(
        '--wait-for-space',
        action='store_true',
        help='wait while the disk is full or the work folder is gone, instead of ending',
    )
    parser.add_argument('--seed', type=int, help='seed of all randomness (default: a random one)')
    train(parser.parse_args())


if __name__ == '__main__':
    exit_command(main, 'the same command with --resume auto goes on from the last checkpoint')
