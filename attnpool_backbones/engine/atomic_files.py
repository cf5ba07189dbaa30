"""Files that are written whole or not at all."""

import os
import tempfile
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

__all__ = ['ATOMIC_BACKEND', 'AtomicLocalBackend', 'remove_stale_files', 'write_atomically']

ATOMIC_BACKEND = 'attnpool_backbones.atomic'
SUFFIX = '.part'


def write_atomically(content: bytes, path: str | Path) -> None:
    """Writes a file so that at any moment the old or the new content is there, never a part.

    The content goes to a hidden file in the same folder, is flushed to the disk and then takes the
    file's name.

    Args:
        content (bytes): All of the file.
        path (str | Path): The file; missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f'.{path.name}.', suffix=SUFFIX, dir=path.parent)
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            # mkstemp's files are private; use the permissions an ordinary file would have had
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(part, 0o666 & ~mask)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    if os.name == 'posix':
        # the new name itself lives in the folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_stale_files(folder: str | Path) -> list[Path]:
    """Removes what :func:`write_atomically` left behind when its process was killed.

    Args:
        folder (str | Path): Searched without its subfolders; may be missing.

    Returns:
        list[Path]: The removed files.
    """
    stale = sorted(Path(folder).glob(f'.*{SUFFIX}'))
    for file in stale:
        file.unlink(missing_ok=True)
    return stale


@register_backend(ATOMIC_BACKEND)
class AtomicLocalBackend(LocalBackend):
    """mmengine's storage of local files, with whole-or-nothing writes."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes bytes; see :func:`write_atomically`."""
        write_atomically(obj, filepath)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Writes text; see :func:`write_atomically`."""
        write_atomically(obj.encode(encoding), filepath)
