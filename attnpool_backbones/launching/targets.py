"""Files and folders that a run will write, tried before it starts."""

import os
import tempfile
from pathlib import Path

from attnpool_backbones.launching.errors import PreflightError

__all__ = ['require_target_file', 'require_target_folder']


def require_target_folder(option: str, folder: str) -> None:
    """Checks that a run will be able to write into a folder, which is made if it is missing.

    Args:
        option: The flag or setting that names it.
        folder: As typed.

    Raises:
        PreflightError: If it cannot be made or written to.
    """
    if '://' in folder:
        raise PreflightError(f'{option} {folder}: is an address; name a folder of this machine')
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        # permissions do not tell of read-only and full disks
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'0')
    except FileExistsError as error:
        raise PreflightError(f'{option} {folder}: is a file, not a folder') from error
    except OSError as error:
        raise PreflightError(
            f'{option} {folder}: cannot be written to ({error.strerror or error})'
        ) from error


def require_target_file(option: str, file: str) -> None:
    """Checks that a run will be able to write a file, whose folder is made if it is missing.

    Args:
        option: The flag that names it.
        file: As typed.

    Raises:
        PreflightError: If it is a folder, or its folder cannot be written to.
    """
    if '://' in file:
        raise PreflightError(f'{option} {file}: is an address; name a file of this machine')
    if os.path.isdir(file):
        raise PreflightError(f'{option} {file}: is a folder, not a file')
    if os.path.exists(file) and not os.access(file, os.W_OK):
        raise PreflightError(f'{option} {file}: is write-protected')
    require_target_folder(option, os.path.dirname(os.path.abspath(file)))
