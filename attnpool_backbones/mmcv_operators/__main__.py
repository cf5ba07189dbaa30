"""Command line: `python -m attnpool_backbones.mmcv_operators install`."""

import argparse
import sys

from attnpool_backbones.command_line import run_command
from attnpool_backbones.mmcv_operators import placing

DESCRIPTION = """\
Lets mmcv-lite, or an mmcv that was installed without a compiler, have operators (NMS, RoIAlign,
deformable convolution ...) in plain torch. Programs that import attnpool_backbones have them
anyway; this is for mmdet's and mmseg's own tools and for your scripts."""


def main() -> int:
    """Installs, removes or describes the stand-in for mmcv's operators."""
    parser = argparse.ArgumentParser(
        prog='python -m attnpool_backbones.mmcv_operators',
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, text in (
        ('install', 'write mmcv/_ext.py into the installed mmcv, unless it has compiled operators'),
        ('remove', 'remove that file'),
        ('status', 'tell which operators serve'),
    ):
        commands.add_parser(name, help=text, description=text)
    command = getattr(placing, parser.parse_args().command)
    return run_command(lambda: print(command()))


if __name__ == '__main__':
    sys.exit(main())
