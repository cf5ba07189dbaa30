"""Opens :mod:`attnpool_backbones.checkpoints.door` as soon as mmengine can read checkpoints.

Imported with the package itself, so it must import nothing heavy.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

READER = 'mmengine.runner'
"""The package with mmengine's registry of readers."""
DOOR = 'attnpool_backbones.checkpoints.door'


class DoorOpener:
    """Finds mmengine's reader as others do, and opens the door once that is imported.

    Stands on ``sys.meta_path`` as a class.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Returns how to load the reader and the door after it, None for any other module."""
        if name != READER:
            return None
        others = (finder for finder in sys.meta_path if finder is not DoorOpener)
        finders = (finder for finder in others if hasattr(finder, 'find_spec'))
        spec = next(filter(None, (f.find_spec(name, path, target) for f in finders)), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_open(module: ModuleType) -> None:
                load(module)
                import_module(DOOR)

            spec.loader.exec_module = load_and_open
        return spec


def open_door_with_mmengine() -> None:
    """Opens the door now if mmengine's reader is imported, else as soon as it is."""
    if READER in sys.modules:
        import_module(DOOR)
    elif DoorOpener not in sys.meta_path:
        sys.meta_path.insert(0, DoorOpener)
