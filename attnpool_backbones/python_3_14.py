"""What Python 3.14 took away and mmengine 0.10 asks for.

Imported with the package itself, so it must import nothing heavy.
"""

import pkgutil
from importlib.machinery import ModuleSpec
from importlib.util import find_spec


def give_back_find_loader() -> None:
    """Adds ``pkgutil.find_loader`` where Python has none.

    mmengine and mmcv ask it whether there is a `mmcv._ext` whenever they make an optimizer. There
    is nothing to register in its place, so without it nothing trains on Python 3.14.
    """
    if not hasattr(pkgutil, 'find_loader'):
        pkgutil.find_loader = _find_loader


def gives_back_find_loader() -> bool:
    """Tells whether ``pkgutil.find_loader`` is that of this module."""
    return getattr(pkgutil, 'find_loader', None) is _find_loader


def _find_loader(fullname: str) -> object | None:
    """Returns the loader of a module, None if there is no such module; as before Python 3.14."""
    try:
        spec: ModuleSpec | None = find_spec(fullname)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ImportError(f'{fullname} cannot be looked for: {error}') from error
    return spec.loader if spec else None
