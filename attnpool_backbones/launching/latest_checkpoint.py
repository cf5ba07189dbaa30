"""Which checkpoint of a work folder a stopped run goes on from."""

import logging
import os
from pathlib import Path

from mmengine.logging import print_log

from attnpool_backbones.checkpoints.errors import CheckpointError
from attnpool_backbones.checkpoints.reading import read_content

__all__ = ['find_resumable_checkpoint', 'is_resumable', 'stored_seed']

RESUME_KEYS = ('meta', 'state_dict', 'message_hub', 'optimizer')


def is_resumable(path: Path) -> bool:
    """Tells whether a file is a whole training checkpoint, with its optimizer.

    Args:
        path (Path): Any file.

    Returns:
        bool: False for a missing, damaged or foreign file and for one without optimizer state.
    """
    try:
        checkpoint = read_content(str(path))
    except (OSError, CheckpointError):
        return False
    return isinstance(checkpoint, dict) and all(key in checkpoint for key in RESUME_KEYS)


def stored_seed(path: str) -> int | None:
    """Returns the random seed of the run that wrote a checkpoint, None if it is not told."""
    checkpoint = read_content(path, 'meta')  # without the weights
    return checkpoint['meta'].get('seed')


def find_resumable_checkpoint(work_dir: str) -> str | None:
    """Finds the checkpoint to resume from: the one named by ``last_checkpoint`` if it is whole,
    else the newest whole one in the folder, with a warning.

    Args:
        work_dir (str): Work folder of the stopped run.

    Returns:
        str | None: Path of the checkpoint, None if there is nothing to resume from.
    """
    note = Path(work_dir) / 'last_checkpoint'
    named = None
    if note.is_file():
        named = Path(note.read_bytes().decode(errors='replace').replace('\0', '').strip())
        # The folder may have been moved or copied since, and the old place be another run's.
        here = Path(work_dir) / named.name
        named = here if os.path.exists(here) else named
    if named is not None and is_resumable(named):
        return str(named)
    by_age = sorted(Path(work_dir).glob('*.pth'), key=lambda file: file.stat().st_mtime)
    for candidate in reversed(by_age):
        if is_resumable(candidate):
            print_log(
                f'{note} names {named}, which is missing or damaged'
                if named is not None
                else f'{note} is missing',
                logger='current',
                level=logging.WARNING,
            )
            print_log(
                f'resuming from {candidate}, the newest whole checkpoint',
                logger='current',
                level=logging.WARNING,
            )
            return str(candidate)
    if by_age:
        print_log(
            f'{work_dir} has no checkpoint that a training could resume from, although it '
            f'has {", ".join(file.name for file in by_age)}',
            logger='current',
            level=logging.WARNING,
        )
    return None
