"""What the C library does with the memory that a process has freed.

glibc maps every block of more than 32 MiB anew and gives it back when it is freed; the first touch
of each of its pages is then a page fault. A map of all tokens and heads is such a block, and its
page faults can take longer than its arithmetic.
"""

import ctypes
import resource
import sys
from pathlib import Path

KEPT_MEMORY = {'free memory': 'kept'}
"""What is added to the facts of a machine after :func:`keep_free_memory`."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_NEVER_TRIM, _MAP_FROM = 2**31 - 1, 2**30  # bytes

_HUGE_PAGES = Path('/sys/kernel/mm/transparent_hugepage/enabled')

KEPT_BY_ENVIRONMENT = {
    'MALLOC_MMAP_THRESHOLD_': str(_MAP_FROM), 'MALLOC_TRIM_THRESHOLD_': str(_NEVER_TRIM)
}  # fmt: skip
"""What makes glibc do the same in a process that starts with these variables."""

_kept = False


def return_free_memory() -> None:
    """Gives the system back what is freed but kept, where the C library can (glibc)."""
    _call('malloc_trim', 0)


def keep_free_memory() -> bool:
    """Makes this process keep all memory it has ever had, so that no block is fresh twice.

    Returns:
        Whether the C library can do that (glibc).
    """
    global _kept
    _kept = bool(
        _call('mallopt', _M_MMAP_THRESHOLD, _MAP_FROM)
        and _call('mallopt', _M_TRIM_THRESHOLD, _NEVER_TRIM)
    )
    return _kept


def keeps_free_memory() -> bool:
    """Tells whether :func:`keep_free_memory` was called in this process, and could do it."""
    return _kept


def fresh_bytes() -> int:
    """Returns the bytes of all pages that this process had to ask for until now.

    Only where :func:`has_small_pages`.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize()


def has_small_pages() -> bool:
    """Tells whether all memory comes in pages of one size, unless a program asks for others.

    Linux can give any large block huge pages; a page fault is then of more than one page.
    """
    try:
        return '[always]' not in _HUGE_PAGES.read_text()
    except OSError:  # no such pages
        return True


def _call(name: str, *arguments: int) -> int:
    if sys.platform != 'linux':
        return 0
    return getattr(ctypes.CDLL(None), name, lambda *_: 0)(*arguments)
