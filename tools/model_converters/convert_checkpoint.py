"""Writes a published checkpoint under this package's names and reports what it holds.

    python tools/model_converters/convert_checkpoint.py s60_224_1k.pth s60.safetensors --publish

Not needed for training: configs take the published file as it is.
"""

import argparse
import sys

from attnpool_backbones.command_line import UserError, run_command


def main() -> None:
    from attnpool_backbones.checkpoints import convert_file
    from attnpool_backbones.launching.targets import require_target_file

    parser = argparse.ArgumentParser(
        description="Writes a published checkpoint under this package's names."
    )
    parser.add_argument('src', help='checkpoint: a file or an address')
    parser.add_argument('dst', help='file to write, .safetensors or .pth')
    parser.add_argument(
        '--publish',
        action='store_true',
        help="add the first 8 digits of the file's sha256 to its name",
    )
    parser.add_argument('--ema', action='store_true', help='take the moving average of the weights')
    args = parser.parse_args()
    require_target_file('destination', args.dst)
    try:
        report = convert_file(args.src, args.dst, publish=args.publish, ema=args.ema)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    print(report)


if __name__ == '__main__':
    sys.exit(run_command(main))
