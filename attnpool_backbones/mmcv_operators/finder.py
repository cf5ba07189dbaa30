"""Finds `mmcv._ext` for the import system where no compiled one is installed.

Imported with the package itself, so it must import nothing heavy.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

STAND_IN = Path(__file__).with_name('stand_in.py')
"""The module that answers as `mmcv._ext`; it is also what `install` copies into mmcv."""


class StandInFinder:
    """Answers for `mmcv._ext`, and for nothing else; stands on ``sys.meta_path`` as a class."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Returns how to load the stand-in, None for any other module."""
        return spec_from_file_location(name, STAND_IN) if name == 'mmcv._ext' else None


def add_finder() -> None:
    """Puts the finder after all others, where a compiled module has been found before; once."""
    if StandInFinder not in sys.meta_path:
        sys.meta_path.append(StandInFinder)
