"""The flags that training and testing share."""

import argparse
import re
from typing import Any

from mmengine.config import DictAction

from attnpool_backbones.command_line import given_name, shortened

__all__ = ['CfgOptions', 'add_common_arguments', 'add_test_arguments']

LONGEST_WAIT = 86400


class CfgOptions(DictAction):
    """``--cfg-options key=value ...`` that answers a malformed option with a message."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        for option in values:
            key, equals, value = option.partition('=')
            if not equals or not all(key.split('.')):
                raise argparse.ArgumentError(
                    self,
                    f'{option!r} is not of the form key=value, for instance '
                    'train_dataloader.batch_size=4',
                )
            # mmengine would take it for a word, or never return
            if re.search(r'(^|[\[(,\'"])\s*(\w+\(|{)', value):
                raise argparse.ArgumentError(
                    self,
                    f'{option!r}: a value is a number, a word, "[a,b]" or "(a,b)"; set the entries '
                    'of a dict one by one, as in model.backbone.arch=s60',
                )
            if is_list(value) and re.search(r'[^\s,\[(]\s+[^\s,\])]', value):
                raise argparse.ArgumentError(
                    self,
                    f'{option!r}: spaces inside of an entry of a list would be lost; set it in a '
                    'config of your own',
                )
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, ValueError) as error:
            raise argparse.ArgumentError(self, f'{" ".join(values)}: {error}') from error

    @staticmethod
    def _parse_iterable(value: str) -> Any:
        """Parses a value; mmengine would drop the spaces of a single one, a path for instance."""
        if is_list(value):
            return DictAction._parse_iterable(value)
        return DictAction._parse_int_float_bool(value.strip().strip('\'"'))


def waiting_time(text: str) -> float:
    """Parses seconds for which a window stays."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= LONGEST_WAIT:
        raise argparse.ArgumentTypeError(
            f'{shortened(text)} is no number of seconds up to {LONGEST_WAIT}'
        )
    return value


def is_list(value: str) -> bool:
    """Tells whether mmengine takes the value of an option for a list or a tuple."""
    return ',' in value or re.match(r'\s*[\'"]*[\[(].*[\])][\'"]*\s*$', value) is not None


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that training and testing share.

    Args:
        parser: Extended in place.
    """
    parser.add_argument(
        '--work-dir',
        type=given_name,
        help='folder for logs, checkpoints and results (default: work_dirs/CONFIG_NAME)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.batch_size=4; '
        'lists as key="[a,b]" or key=a,b',
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='torch.compile the backbone; needs a C++ compiler on the CPU',
    )
    parser.add_argument(
        '--max-bad',
        type=int,
        default=10,
        metavar='N',
        help='images, masks or annotations that cannot be used are left out and named, up to N '
        '(default: %(default)s); 0 ends at the first',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started; without CUDA only none and pytorch',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by older launchers'
    )


def add_test_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tools/test.py`` and ``attnpool test``, besides the common ones.

    Args:
        parser: Extended in place.
    """
    parser.add_argument(
        '--out',
        type=given_name,
        metavar='PATH',
        help='write the predictions to a .pkl file; segmentation maps also to a '
        'folder, as PNG files',
    )
    parser.add_argument('--show', action='store_true', help='show predictions in windows')
    parser.add_argument(
        '--show-dir', type=given_name, metavar='FOLDER', help='write pictures of the predictions'
    )
    parser.add_argument(
        '--wait-time',
        type=waiting_time,
        default=2,
        metavar='SECONDS',
        help='how long a window of --show stays (default: 2)',
    )
    parser.add_argument(
        '--report',
        type=given_name,
        metavar='FOLDER',
        help='write a page of what the model gets wrong: each class, what it is confused with, '
        'the worst images, labels that are perhaps wrong',
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
