"""Puts the stand-in for `mmcv._ext` into an installed mmcv, and takes it out again."""

import csv
import io
import os
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

from attnpool_backbones.command_line import UserError
from attnpool_backbones.mmcv_operators.finder import STAND_IN

MARK = 'attnpool_backbones.mmcv_operators'  # in the first line of a file of ours


def mmcv_folder() -> Path:
    """Returns the folder of the installed mmcv, which is not imported.

    Raises:
        UserError: If none is installed.
    """
    spec = find_spec('mmcv')
    if spec is None or spec.origin is None:
        raise UserError('mmcv is not installed: pip install mmcv-lite==2.1.0')
    return Path(spec.origin).parent


def compiled_extension(folder: Path) -> Path | None:
    """Returns the compiled `mmcv._ext` in mmcv's folder, None if there is none."""
    files = (folder / f'_ext{suffix}' for suffix in EXTENSION_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def status() -> str:
    """Tells which operators serve, in programs that import this package and in others."""
    folder = mmcv_folder()
    compiled = compiled_extension(folder)
    if compiled is not None:
        return f'compiled, {compiled}'
    if _is_ours(folder / '_ext.py'):
        return f'plain torch, by {folder / "_ext.py"}'
    if (folder / '_ext.py').exists():
        return f'those of {folder / "_ext.py"}, which is not of attnpool_backbones'
    return (
        'plain torch, in programs that import attnpool_backbones before mmcv.ops; for others: '
        'python -m attnpool_backbones.mmcv_operators install'
    )


def install() -> str:
    """Writes the stand-in into mmcv, if it has no compiled operators; returns what was done.

    mmcv's own list of files gets it too, so that pip takes it away with mmcv.

    Raises:
        UserError: If there is no mmcv, its folder cannot be written or has another `_ext.py`.
    """
    folder = mmcv_folder()
    target = folder / '_ext.py'
    compiled = compiled_extension(folder)
    if compiled is not None:
        return f'nothing to do: mmcv has compiled operators, {compiled}'
    if target.exists() and not _is_ours(target):
        raise UserError(f'{target} is not of attnpool_backbones; it is left as it is')
    _write(target, STAND_IN.read_text(encoding='utf-8'))
    _list_in_record(folder, listed=True)
    return f'wrote {target}: mmcv has operators in plain torch now'


def remove() -> str:
    """Takes the stand-in out of mmcv; returns what was done.

    Raises:
        UserError: If there is no mmcv, or its folder cannot be written.
    """
    folder = mmcv_folder()
    target = folder / '_ext.py'
    if not _is_ours(target):
        return f'nothing to do: there is no {target} of attnpool_backbones'
    try:
        target.unlink()
    except OSError as error:
        raise UserError(f'{target} cannot be removed: {error.strerror}') from None
    _list_in_record(folder, listed=False)
    return f'removed {target}'


def _is_ours(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open(encoding='utf-8', errors='replace') as lines:
        return MARK in lines.readline()


def _list_in_record(folder: Path, listed: bool) -> None:
    for record in folder.parent.glob('*.dist-info/RECORD'):
        with record.open(newline='', encoding='utf-8') as lines:
            rows = list(csv.reader(lines))
        files = [row[0] for row in rows if row]
        if f'{folder.name}/__init__.py' not in files:
            continue
        entry = f'{folder.name}/_ext.py'
        if listed == (entry in files):
            return
        kept = [row for row in rows if row and row[0] != entry] + [[entry, '', '']] * listed
        text = io.StringIO()
        csv.writer(text, lineterminator='\n').writerows(kept)
        _write(record, text.getvalue())
        return


def _write(file: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    part = file.with_name(f'{file.name}.{os.getpid()}.part')
    try:
        part.write_text(text, encoding='utf-8')
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f'{file} cannot be written: {error.strerror}') from None
