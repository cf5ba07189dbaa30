"""Lets timm be imported where torchvision is not installed.

timm's models use nothing of torchvision but names: its image transforms and datasets, which a
benchmark of backbones never calls, inherit from them or list them.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

NAME = 'torchvision'


class _PlaceholderType(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith('_'):
            raise AttributeError(name)
        return f'{cls.__qualname__}.{name}'  # members of enumerations, in tables


class _Module(ModuleType):
    """A module in which every public name is a class that cannot be made use of."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_'):
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise ImportError(f'{self.__name__}.{name} needs torchvision, which is not installed')

        made = _PlaceholderType(name, (), dict(__init__=refuse))
        setattr(self, name, made)
        return made


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition('.')[0] != NAME:
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing: names are made when they are asked for."""


@contextmanager
def torchvision_or_stand_in() -> Iterator[bool]:
    """Makes ``import torchvision`` work while the context lasts; afterwards all is as before.

    Yields:
        Whether it is the stand-in that answers, since torchvision cannot be imported.
    """
    try:
        importlib.import_module(f'{NAME}.ops')
    except ImportError:
        pass
    else:
        yield False
        return
    before = _take_away()
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield True
    finally:
        sys.meta_path.remove(finder)
        _take_away()
        sys.modules.update(before)


def _take_away() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition('.')[0] == NAME]
    return {name: sys.modules.pop(name) for name in names}
