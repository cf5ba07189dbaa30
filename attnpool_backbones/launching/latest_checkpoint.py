"""Which checkpoint of a work folder a stopped run goes on from, and what must not be passed over.

A training never starts over beside checkpoints that it cannot read: what is wrong with them can
mostly be put right, and what a new training would write over them cannot.
"""

import logging
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from attnpool_backbones.checkpoints.errors import CheckpointError
from attnpool_backbones.checkpoints.finite_weights import require_finite_weights
from attnpool_backbones.checkpoints.matching import Shapes, tensors_of
from attnpool_backbones.checkpoints.reading import read_content
from attnpool_backbones.command_line import UserError
from attnpool_backbones.engine.resumed_parts import WrongPart, require_training_parts
from attnpool_backbones.engine.work_folder_hook import RUN
from attnpool_backbones.launching.devices import is_first_process

__all__ = [
    'UnusableCheckpoints',
    'find_resumable_checkpoint',
    'has_later',
    'newest_best',
    'noted_checkpoint',
    'stored_seed',
]

ASIDE = '.damaged'
"""Ending of files that are moved aside."""


class UnusableCheckpoints(UserError):
    """A work folder has checkpoints, but none that a training can go on from."""


@dataclass
class Candidate:
    """A file of a work folder.

    Attributes:
        path: Where it is.
        fault: What is wrong with it, '' if nothing is.
        unreadable: Whether it could not even be read, by rights or by its disk.
        weights_only: Whether it is no checkpoint of a training, and was not meant to be one.
        iteration: Of the training, -1 if it is not known.
        run: Name of the training, None if it is not known.
        best: Names of the best checkpoints of the training.
        shapes: Of the weights.
    """

    path: Path
    fault: str = ''
    unreadable: bool = False
    weights_only: bool = False
    iteration: int = -1
    run: str | None = None
    best: frozenset[str] = frozenset()
    shapes: Shapes | None = None

    @property
    def time(self) -> float:
        """When it was written, 0 if it is not known."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0


def stored_seed(path: str) -> int | None:
    """Returns the random seed of the run that wrote a checkpoint, None if it is not told."""
    return read_content(path, 'meta')['meta'].get('seed')


def examine(path: Path | str, whole: bool = True) -> Candidate:
    """Finds out what a file is.

    Args:
        path: Any file, or its address.
        whole: Whether to look at all numbers too. Default: True.
    """
    found = Candidate(Path(path))
    try:
        if '://' not in str(path):
            with found.path.open('rb'):
                pass
        content = read_content(str(path), 'cpu' if whole else 'meta')
    except FileNotFoundError:
        found.fault = 'is not there'
    except CheckpointError as error:
        found.fault = str(error).removeprefix(str(path)).strip()
    except OSError as error:
        found.fault = f'cannot be read ({error.strerror or error})'
        found.unreadable = True
    else:
        look_into(found, content, whole)
    return found


def look_into(found: Candidate, content: Any, whole: bool) -> None:
    """Completes a candidate by what its file holds."""
    meta = content.get('meta') if isinstance(content, Mapping) else None
    iteration = meta.get('iter') if isinstance(meta, Mapping) else None
    found.iteration = iteration if type(iteration) is int else -1
    info = content
    for key in ('message_hub', 'runtime_info'):
        info = info.get(key) if isinstance(info, Mapping) else None
    if isinstance(info, Mapping):
        run = info.get(RUN)
        found.run = run if isinstance(run, str) else None
        best = [value for key, value in info.items() if str(key).startswith('best_ckpt')]
        found.best = frozenset(Path(str(value)).name for value in best)
    try:
        require_training_parts(content)
    except WrongPart as error:
        found.fault = f'cannot be resumed: {error}'
        # the best checkpoints of a run, and files of others
        found.weights_only = isinstance(content, Mapping) and 'optimizer' not in content
        return
    weights = content['state_dict']
    found.shapes = {str(k).removeprefix('module.'): v.shape for k, v in weights.items()}
    averaged = content.get('ema_state_dict')
    if not whole:
        return
    try:
        require_finite_weights(weights)
        if isinstance(averaged, Mapping):
            require_finite_weights(tensors_of(averaged))
    except CheckpointError as error:
        found.fault = f'cannot be resumed: {error}'


def find_resumable_checkpoint(
    work_dir: str, fits: Callable[[Shapes], bool] | None = None, out_dir: str | None = None
) -> str | None:
    """Finds the checkpoint to resume from: the sound one of the last run with the most iterations.

    The last run is that of the file that ``last_checkpoint`` names. If the file is not sound, it is
    that of the newest one; if it does not tell its run, all files are compared. Damaged files
    that are newer are moved aside, so that the training does not write over them. A storage behind
    addresses is not listed: what ``last_checkpoint`` names there is the last one.

    Args:
        work_dir: Work folder of the stopped run.
        fits: Tells whether weights are those of the model; only asked if the
            files of a folder differ. Default: None: all are.
        out_dir: Folder of the checkpoints, if it is another one. Default: None.

    Returns:
        Path or address of the checkpoint, None if there is nothing to resume from.

    Raises:
        UnusableCheckpoints: If there are checkpoints, but none to go on from, or newer ones that
            could not be read; naming each, and what to do.
    """
    noted = noted_checkpoint(Path(work_dir))
    if noted is not None and '://' in noted:
        fault = examine(noted).fault
        if fault:
            raise UnusableCheckpoints(
                f'--resume auto: {noted}, named by last_checkpoint of {work_dir}, {fault}. Put it '
                'right, name another file by --resume FILE, or start over with another --work-dir'
            )
        return noted
    candidates = list_candidates(work_dir, out_dir)
    chosen, rejected = choose(candidates, fits, Path(noted or '').name)
    serious = [c for c in rejected if not is_foreign(c)]
    if chosen is None:
        if not serious and noted is None:
            return None
        raise UnusableCheckpoints(nothing_usable(work_dir, serious, noted))
    unreadable = [c for c in serious if c.unreadable and c.time >= chosen.time]
    if unreadable:
        raise UnusableCheckpoints(
            f'{work_dir} has checkpoints that cannot be read and may be newer than '
            f'{chosen.path.name}:\n{listed(unreadable)}\nMake them readable (rights, disk), or go '
            f'on from an older one by --resume {shlex.quote(str(chosen.path))}'
        )
    for candidate in serious:
        if candidate.time >= chosen.time or candidate.iteration > chosen.iteration:
            move_aside(candidate)
    if serious:
        print_log(
            f'resuming from {chosen.path}, the newest checkpoint that is sound and of this model',
            logger='current',
            level=logging.WARNING,
        )
    return str(chosen.path)


def has_later(work_dir: str, out_dir: str | None, resumed: Candidate) -> bool:
    """Tells whether a run that is resumed has later checkpoints, which it would go on beside.

    Args:
        work_dir: As of :func:`find_resumable_checkpoint`.
        out_dir: Likewise.
        resumed: What it is resumed from.
    """
    return any(
        not other.fault and other.run == resumed.run and other.iteration > resumed.iteration
        for other in list_candidates(work_dir, out_dir)
    )


def list_candidates(work_dir: str, out_dir: str | None) -> list[Candidate]:
    """Looks at the checkpoints of a work folder, without their numbers."""
    folders = [Path(folder) for folder in dict.fromkeys((work_dir, out_dir or work_dir))]
    return [examine(path, whole=False) for path in list_checkpoints(folders)]


def list_checkpoints(folders: list[Path]) -> list[Path]:
    """Lists the files of work folders that may be checkpoints.

    Raises:
        UnusableCheckpoints: If a folder cannot be looked into.
    """
    paths: list[Path] = []
    for folder in folders:
        if folder.is_symlink() and not folder.exists():
            raise UnusableCheckpoints(
                f'{folder} is a link to {os.readlink(folder)}, which is not there: is its disk '
                'mounted? To start over, remove the link'
            )
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UnusableCheckpoints(
                f'{folder} cannot be looked into for checkpoints ({error.strerror}): make it '
                'readable, or give another --work-dir'
            ) from error
        paths += [folder / name for name in names if name.endswith('.pth')]
    return paths


def choose(
    candidates: list[Candidate], fits: Callable[[Shapes], bool] | None, noted: str
) -> tuple[Candidate | None, list[Candidate]]:
    """Returns the candidate to go on from, and those with faults.

    Args:
        candidates: Looked at without their numbers.
        fits: As of :func:`find_resumable_checkpoint`.
        noted: Name of the file that ``last_checkpoint`` names, or ``''``.
    """
    rejected = [candidate for candidate in candidates if candidate.fault]
    sound = [candidate for candidate in candidates if not candidate.fault]
    if fits is not None and len({frozenset(c.shapes.items()) for c in sound}) > 1:
        for candidate in sound:
            if not fits(candidate.shapes):
                candidate.fault = 'is of another model than the config'
                rejected.append(candidate)
        sound = [candidate for candidate in sound if not candidate.fault]
    last = max(sound, key=lambda c: (c.path.name == noted, c.time), default=None)
    if last is not None and last.run is not None:
        sound = [candidate for candidate in sound if candidate.run == last.run]
    for candidate in sorted(sound, key=lambda c: (c.iteration, c.time), reverse=True):
        looked = examine(candidate.path)
        if not looked.fault:
            return candidate, rejected
        rejected.append(looked)
    return None, rejected


def is_foreign(candidate: Candidate) -> bool:
    """Tells whether a file is nothing that a training of this folder could go on from.

    The best checkpoints have no optimizer on purpose, and people put weights to start from where
    they like.
    """
    best = candidate.path.name.startswith('best_')
    return candidate.weights_only and (best or candidate.iteration < 0)


def noted_checkpoint(folder: Path) -> str | None:
    """Returns what ``last_checkpoint`` of a folder names, None if there is none."""
    note = folder / 'last_checkpoint'
    if not note.is_file():
        return None
    named = note.read_bytes().decode(errors='replace').replace('\0', '').strip()
    return named or None


def newest_best(folder: Path) -> Path | None:
    """Returns the best checkpoint of the last run, None if it has none.

    The last run is that of the file that ``last_checkpoint`` names; an earlier one in the same
    folder, or a branch that was left, may have a best checkpoint of its own there. If the file does
    not tell its run, the best checkpoint that was written last counts.

    Args:
        folder: Work folder of the run.
    """
    files = list(folder.glob('best_*.pth'))
    noted = noted_checkpoint(folder) if files else None
    if noted is not None:
        last = examine(folder / Path(noted).name, whole=False)
        if last.run is not None:
            # a run that went back may still have the best one of before, under the old name
            files = [
                f for f in files if f.name in last.best or examine(f, whole=False).run == last.run
            ]
    return max(files, key=lambda file: file.stat().st_mtime, default=None)


def nothing_usable(work_dir: str, serious: list[Candidate], noted: str | None) -> str:
    """Words why a training neither goes on nor starts over."""
    lines = [f'--resume auto: no checkpoint in {work_dir} can be resumed:']
    if serious:
        lines.append(listed(serious))
    if noted is not None and not any(Path(noted).name == c.path.name for c in serious):
        lines.append(f'  {noted}, named by last_checkpoint, is not there: is its disk mounted?')
    lines.append(
        'Put them right (rights, disk, a copy), name another file by --resume FILE, or start over: '
        f'with another --work-dir, or after removing them and {Path(work_dir, "last_checkpoint")}'
    )
    return '\n'.join(lines)


def listed(candidates: list[Candidate]) -> str:
    """Lists files with what is wrong with them."""
    return '\n'.join(f'  {c.path.name} {c.fault}' for c in candidates)


def move_aside(candidate: Candidate) -> None:
    """Renames a file that the resumed training would write over or stumble upon."""
    if candidate.weights_only or not is_first_process():
        return
    number, target = 0, candidate.path.with_name(candidate.path.name + ASIDE)
    while os.path.lexists(target):
        number += 1
        target = candidate.path.with_name(f'{candidate.path.name}{ASIDE}{number}')
    try:
        os.rename(candidate.path, target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnusableCheckpoints(
            f'{candidate.path} {candidate.fault}, and cannot be moved aside ({error.strerror})'
        ) from error
    print_log(
        f'{candidate.path} {candidate.fault}; moved aside to {target.name}',
        logger='current',
        level=logging.WARNING,
    )
