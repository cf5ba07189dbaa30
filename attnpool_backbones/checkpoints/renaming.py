"""Rules that turn the names of a published checkpoint into those of this package."""

import re
from collections.abc import Iterable

__all__ = ['Rules', 'rename_by_all', 'rename_by_first']

Rules = Iterable[tuple[str, str]]
"""Regular expression of a part of a name -> what takes its place."""


def rename_by_first(name: str, rules: Rules) -> str:
    """Applies the first rule whose expression is found in a name, and no other.

    Args:
        name: Of a tensor.
        rules: In the order of their precedence.

    Returns:
        The new name; ``name`` itself if no rule is about it.
    """
    for pattern, replacement in rules:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def rename_by_all(name: str, rules: Rules) -> str:
    """Applies every rule, each to what the one before it gave.

    Args:
        name: Of a tensor.
        rules: In the order in which they are applied.

    Returns:
        The new name.
    """
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
