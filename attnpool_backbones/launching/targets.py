"""Files and folders that a run will write, tried before it starts."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attnpool_backbones.command_line import UserError

__all__ = ['require_target_file', 'require_target_folder', 'writable_folder']


def require_target_folder(option: str, folder: str) -> None:
    """Checks that a run will be able to write into a folder, which is made if it is missing.

    Args:
        option: The flag or setting that names it.
        folder: As typed.

    Raises:
        UserError: If it cannot be made or written to.
    """
    if '://' in folder:
        raise UserError(f'{option} {folder}: is an address; name a folder of this machine')
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        # permissions do not tell of read-only and full disks
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'0')
    except FileExistsError as error:
        fault = 'is a file, not a folder'
        if not os.path.exists(error.filename):
            target = os.readlink(error.filename)
            fault = f'{error.filename} is a link to {target}, which is not there: is it mounted?'
        raise UserError(f'{option} {folder}: {fault}') from error
    except OSError as error:
        raise UserError(
            f'{option} {folder}: cannot be written to ({error.strerror or error})'
        ) from error


@contextmanager
def writable_folder(option: str, folder: str) -> Iterator[None]:
    """Checks a folder as :func:`require_target_folder` does, before work whose results it gets.

    Args:
        option: The flag that names it.
        folder: As typed; removed again, with the folders around it, as far as they are new, if the
            work fails and has left nothing there.

    Raises:
        UserError: If it cannot be made or written to.
    """
    path = Path(folder)
    new = [each for each in (path, *path.parents) if not os.path.lexists(each)]
    try:
        require_target_folder(option, folder)
        yield
    except BaseException:
        for each in new:
            if os.path.isdir(each) and not os.listdir(each):
                os.rmdir(each)
        raise


def require_target_file(option: str, file: str) -> None:
    """Checks that a run will be able to write a file, whose folder is made if it is missing.

    Args:
        option: The flag that names it.
        file: As typed.

    Raises:
        UserError: If it is a folder, or its folder cannot be written to.
    """
    if '://' in file:
        raise UserError(f'{option} {file}: is an address; name a file of this machine')
    try:
        kind = os.stat(file).st_mode
    except FileNotFoundError:
        kind = None
    except OSError as error:  # of a name that is too long, for instance
        raise UserError(
            f'{option} {file}: cannot be written to ({error.strerror or error})'
        ) from error
    if kind is not None and stat.S_ISDIR(kind):
        raise UserError(f'{option} {file}: is a folder, not a file')
    if kind is not None and not stat.S_ISREG(kind):
        raise UserError(f'{option} {file}: is no ordinary file, it is not replaced by one')
    if kind is not None and not os.access(file, os.W_OK):
        raise UserError(f'{option} {file}: is write-protected')
    require_target_folder(option, os.path.dirname(os.path.abspath(file)))
