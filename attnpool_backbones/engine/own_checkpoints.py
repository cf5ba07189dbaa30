"""Which checkpoint files are a run's own, by folder and name."""

import os.path as osp
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ['INTERIM', 'OwnCheckpoints', 'is_same_place', 'remove_interim']

INTERIM = 'interim_iter_{}.pth'
"""Name of a checkpoint between the regular ones; removed when a later one is there."""


@dataclass(frozen=True)
class OwnCheckpoints:
    """The checkpoints of a run.

    Args:
        backend: mmengine's file backend.
        folder: Where they are.
        template: Of their names, with ``{}`` in the place of the step.
    """

    backend: Any
    folder: str
    template: str

    def find(self, path: Any) -> str | None:
        """Returns the file of a name in the own folder, None if it is not of the run's names."""
        name = osp.basename(str(path or ''))
        regular = re.escape(self.template).replace(r'\{\}', r'\d+')
        own = re.fullmatch(rf'(best_.+_)?{regular}', name)
        path = own and self.backend.join_path(self.folder, name)
        return path if path and self.backend.exists(path) else None

    def remove(self, names: Iterator[str]) -> Iterator[str]:
        """Removes files, never a link, and yields their paths."""
        for path in filter(None, map(self.find, names)):
            if self.backend.isfile(path) and not osp.islink(path):
                self.backend.remove(path)
                yield path


def is_same_place(one: str, other: str) -> bool:
    """Tells whether two paths or addresses name the same file."""
    both_here = osp.exists(one) and osp.exists(other)
    return one == other or (both_here and osp.samefile(one, other))


def remove_interim(folder: str, kept: str, iteration: int) -> None:
    """Removes the interim checkpoints up to an iteration, except one."""
    for file in Path(folder).glob(INTERIM.format('*')):
        number = re.fullmatch(INTERIM.format(r'(\d+)'), file.name)
        if number and str(file) != kept and int(number.group(1)) <= iteration:
            file.unlink(missing_ok=True)
