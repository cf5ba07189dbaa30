"""What the commands that unpack an official data set have in common."""

import argparse
from collections.abc import Callable
from pathlib import Path

from attnpool_backbones.command_line import UserError, given_place
from attnpool_backbones.datasets.records import DataSet
from attnpool_backbones.progress_bar import progress_bar

__all__ = ['run_preparation']


def run_preparation(
    description: str, data_set: DataSet, prepare: Callable[..., object], out_dir: str, archives: str
) -> None:
    """Parses a command line, unpacks with a progress bar and says what is there.

    Args:
        description: For ``--help``.
        data_set: What it has when it is complete.
        prepare: Takes the folder of the archives, that of the data, and ``progress``.
        out_dir: Folder of the data, if the command line names no other.
        archives: What the folder of the archives has, in words.

    Raises:
        UserError: It was stopped; the same command goes on.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('downloads', type=given_place, help=f'folder with {archives}')
    parser.add_argument(
        '--out-dir', type=given_place, default=Path(out_dir), help='default: %(default)s'
    )
    args = parser.parse_args()
    try:
        with progress_bar(data_set.name, in_bytes=True) as progress:
            prepare(args.downloads, args.out_dir, progress=progress)
    except KeyboardInterrupt:
        raise UserError('stopped; the same command goes on from here') from None
    images = ' and '.join(f'{count} {split}' for split, count in data_set.images.items())
    print(f'{args.out_dir}: complete, {images} images, {data_set.classes} classes')
