"""Makes the built-in data set: real handwritten digits on real photos, in COCO's and ADE's layout.

An existing folder with the same parameters is verified and kept.
"""

import argparse
import sys
from pathlib import Path

from attnpool_backbones.command_line import UserError, given_place, run_command


def main() -> None:
    from attnpool_backbones.compatibility import check_environment

    check_environment('scenes', 'report')
    from attnpool_backbones.datasets import digit_scenes
    from attnpool_backbones.progress_bar import progress_bar

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out-dir',
        type=given_place,
        default=Path('data/digit_scenes'),
        help='default: %(default)s',
    )
    parser.add_argument(
        '--train',
        type=int,
        default=digit_scenes.TRAIN,
        help='number of training scenes, default: %(default)s',
    )
    parser.add_argument(
        '--val',
        type=int,
        default=digit_scenes.VAL,
        help='number of validation scenes, default: %(default)s',
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        default=list(digit_scenes.SIZE),
        metavar='PIXELS',
        help='width and height, or one number for both, '
        f'at least {digit_scenes.MIN_SIZE}, default: %(default)s',
    )
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument(
        '--force',
        action='store_true',
        help='make it again if it is damaged or has other parameters',
    )
    args = parser.parse_args()
    size = args.size[0] if len(args.size) == 1 else tuple(args.size)
    try:
        with progress_bar('digit scenes') as show:
            summary = digit_scenes.generate(
                args.out_dir, args.train, args.val, size, args.seed, args.force, show
            )
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None
    except KeyboardInterrupt:
        raise UserError('stopped, nothing was written') from None
    state = 'verified' if summary['reused'] else 'written'
    digits = summary['digits']
    print(
        f'{args.out_dir}: {state}, {summary["train"]} training scenes with {digits["train"]} '
        f'digits, {summary["val"]} validation scenes with {digits["val"]} digits'
    )


if __name__ == '__main__':
    sys.exit(run_command(main))
