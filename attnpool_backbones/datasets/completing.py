"""Unpacks what a data set lacks, and names what it lacks even then."""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.unpacking import Archive, open_archives, unpack

__all__ = ['Finding', 'complete', 'some', 'whole_and_empty']


@dataclass(frozen=True)
class Finding:
    """What is missing, damaged or superfluous.

    Args:
        text: A line that names it.
        archive: The archive that can put it right, if one can.
        damaged: Files to be written again, though their size may be right.
    """

    text: str
    archive: Archive | None = None
    damaged: tuple[Path, ...] = ()


def complete(
    look: Callable[[], Sequence[Finding]],
    downloads: Path,
    root: Path,
    whole: str,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Unpacks what is missing or damaged and looks again.

    Args:
        look: Returns all that is wrong with the data set.
        downloads: Folder with the archives; those that have nothing to put right are not asked for.
        root: Where to.
        whole: What the data set should be, for the message.
        progress: See :func:`unpack`.

    Raises:
        UserError: Archives are missing or damaged, or something is wrong even then; the message
            names everything.
    """
    findings = look()
    wanted = list(dict.fromkeys(f.archive for f in findings if f.archive is not None))
    if wanted:
        # of a folder that is not there at all the archive says enough
        absent = [archive for archive in wanted if not (root / archive.folder).exists()]
        lacking = [finding.text for finding in findings if finding.archive not in absent]
        opened = open_archives(downloads, wanted, lacking)
        try:
            unpack(opened, root, progress, again={p for f in findings for p in f.damaged})
        finally:
            for archive in opened.values():
                archive.close()
        findings = look()
    if findings:
        raise UserError('\n'.join([f'{root} is not {whole}:', *(f.text for f in findings)]))


def whole_and_empty(folder: Path, suffix: str) -> tuple[list[str], list[str]]:
    """Returns the names of a folder's files that have content, and of those of no bytes.

    Only the sizes are asked for, since there are a hundred thousand. Links to nowhere are empty.
    """
    by_state: dict[bool, list[str]] = {True: [], False: []}
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(suffix):
                    by_state[entry.is_file() and entry.stat().st_size > 0].append(entry.name)
    return by_state[True], by_state[False]


def some(names: Collection[str]) -> str:
    """Returns the first names of many, for a message."""
    return ', '.join(sorted(names)[:5]) + (' ...' if len(names) > 5 else '')
