"""The command ``attnpool``: what the scripts in tools/ do, and the way from own data to a model.

A subcommand is a module of this package with ``add_arguments(parser)`` and ``run(args)``, and a
line in :data:`COMMANDS`.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from attnpool_backbones.command_line import exit_command, run_command
from attnpool_backbones.version import __version__

__all__ = ['COMMANDS', 'main']

COMMANDS: dict[str, str] = dict(
    quickstart='from nothing to a detector, a segmentor and pictures, in minutes',
    train='train on a folder of your own, or as a config says',
    test='evaluate a trained model',
    predict='run a trained model on images, a video or a camera',
    export='write a trained model as one file (ONNX)',
    verify='find all that is wrong with a folder or with the data of a config',
    browse='draw samples with their labels, before and after augmentation',
    config='write the config for a folder, without training',
    figure='draw where a model looks, what its gates do, what it costs',
    models='list backbones, heads and what they cost',
)
"""Name -> what it does, in the order of the help."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
        words: Of the command line. Default: those that the process was started with, which is
            ended afterwards.

    Returns:
        Exit code: 0, 1 where something was found to be wrong, 2 after an error, 130 after Ctrl-C.
    """
    is_process = words is None
    words = list(sys.argv[1:] if words is None else words)
    name = words[0] if words else ''
    if name not in COMMANDS:
        _answer(words)
        return 0  # not reached for a wrong name, which argparse answers
    module = import_module(f'attnpool_backbones.cli.{name}')
    parser = argparse.ArgumentParser(
        f'attnpool {name}',
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def command() -> int | None:
        # flags that mmengine parses are added after the environment has been checked
        module.add_arguments(parser)
        return module.run(parser.parse_args(words[1:]))

    after_interrupt = getattr(module, 'AFTER_INTERRUPT', '')
    if is_process:
        exit_command(command, after_interrupt)
    return run_command(command, after_interrupt)


def _answer(words: Sequence[str]) -> None:
    """Shows help or version, or says which subcommands there are."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {purpose}' for name, purpose in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        'attnpool',
        description='From your own images to a trained model in use, and all that is in between.',
        epilog='\n'.join(['commands:', *lines, '', 'attnpool COMMAND --help tells the rest.']),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'attnpool_backbones {__version__}')
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', nargs='?')
    parser.parse_args(words)
    parser.print_help()
