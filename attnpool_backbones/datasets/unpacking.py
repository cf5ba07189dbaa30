"""Unpacking zip archives so that a folder is there as a whole or not at all."""

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from attnpool_backbones.command_line import UserError

__all__ = ['Archive', 'open_archives', 'unpack']

CHUNK = 2**20  # bytes
PART = '.part'


@dataclass(frozen=True)
class Archive:
    """An official archive.

    Args:
        file: Name of the zip file.
        folder: The folder at its top.
        source: Where it can be downloaded.
    """

    file: str
    folder: str
    source: str


def open_archives(
    downloads: Path, archives: Sequence[Archive], lacking: Sequence[str] = ()
) -> dict[str, zipfile.ZipFile]:
    """Opens archives, after looking for everything that could be wrong with them.

    Args:
        downloads: Folder of the zip files.
        archives: Which ones are wanted.
        lacking: What they are wanted for; told when they cannot be opened. Default: nothing.

    Returns:
        The open archives by name of their folder.

    Raises:
        UserError: Some are missing, damaged, or would write elsewhere than into their folder; all
            of them are named.
    """
    opened, problems = {}, []
    for archive in archives:
        path = downloads / archive.file
        if not path.is_file():
            problems.append(f'{path} is missing; download it from {archive.source}')
            continue
        try:
            opened[archive.folder] = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            problems.append(
                f'{path} is damaged or was not downloaded completely ({error}); download it '
                f'again from {archive.source}'
            )
            continue
        unsafe = [i.filename for i in opened[archive.folder].infolist() if not _is_safe(i, archive)]
        if unsafe:
            problems.append(
                f'{path} is not the official archive: {len(unsafe)} of its members do not lie in '
                f'{archive.folder}/, the first is {unsafe[0]!r}'
            )
    if problems:
        for archive in opened.values():
            archive.close()
        raise UserError('\n'.join([*problems, *lacking]))
    return opened


def _is_safe(info: zipfile.ZipInfo, archive: Archive) -> bool:
    """Tells whether a member is a plain file or folder below the archive's own folder."""
    parts = PurePosixPath(info.filename.replace('\\', '/')).parts
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    return parts[:1] == (archive.folder,) and '..' not in parts and not is_link


def unpack(
    archives: dict[str, zipfile.ZipFile],
    root: Path,
    progress: Callable[[int, int], None] | None = None,
    again: Collection[Path] = (),
) -> None:
    """Unpacks the folders of several archives.

    A folder is unpacked under a hidden name, ``.FOLDER.unpacking``, and renamed when all of it is
    there. What an interrupted call has unpacked is kept by the next one. A folder that exists
    already gets the files that it lacks or has in another size; each file arrives whole.

    Args:
        archives: By name of their folder, from :func:`open_archives`.
        root: Where the folders go.
        progress: Called with the bytes done and the bytes in all. Default: nobody is told.
        again: Files that are written anew even if their size is right. Default: none.

    Raises:
        UserError: The disk has too little space, or a member is damaged.
    """
    places = {folder: _place(root, folder) for folder in archives}
    wanted = [
        (archive, info, places[folder].joinpath(*PurePosixPath(info.filename).parts[1:]))
        for folder, archive in archives.items()
        for info in archive.infolist()
        if not info.is_dir()
    ]
    lacking = [m for m in wanted if m[2] in again or not _is_there(m[2], m[1].file_size)]
    root.mkdir(parents=True, exist_ok=True)
    needed, free = sum(info.file_size for _, info, _ in lacking), shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f'{root} has {free / 1e9:.1f} GB of free space, unpacking needs {needed / 1e9:.1f} GB'
        )
    total = sum(info.file_size for _, info, _ in wanted)
    done = total - needed
    for archive, info, path in lacking:
        _unpack_member(archive, info, path)
        done += info.file_size
        if progress is not None:
            progress(done, total)
    for folder, place in places.items():
        if place != root / folder:
            os.replace(place, root / folder)


def _place(root: Path, folder: str) -> Path:
    finished = root / folder
    return finished if finished.exists() else root / f'.{folder}.unpacking'


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _unpack_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    """Writes one file beside its place, checked against the archive's checksum, and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}{PART}')
    try:
        with archive.open(info) as source, part.open('wb') as target:
            shutil.copyfileobj(source, target, CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f'{info.filename} cannot be unpacked from {archive.filename}: {error}'
        ) from error
    os.replace(part, path)
