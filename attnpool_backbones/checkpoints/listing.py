"""Lists of names in messages."""

from collections.abc import Iterable


def list_names(names: Iterable, count: int = 6) -> str:
    """Returns the first ``count`` names as text, with the number of those left out."""
    names = [str(name) for name in names]
    more = f' and {len(names) - count} more' if len(names) > count else ''
    return ', '.join(names[:count]) + more
