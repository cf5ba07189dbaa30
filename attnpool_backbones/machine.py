"""What this machine is, and how much memory this process takes of it."""

import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    'available_memory',
    'peak_memory',
    'processor_name',
    'resident_memory',
    'usable_cores',
]

SYSTEM = Path('/')
"""Where Linux shows ``proc`` and ``sys``."""

GROUP_FILES = (
    ('memory.max', 'memory.current', ''),
    ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_'),
)
"""Limit and use of a control group, and what its statistics begin with; version 2 and 1."""


def processor_name() -> str:
    """Returns the name of the processor, as the system tells it.

    On Linux family and model are told, too: virtual machines name all generations of an AMD EPYC
    alike.
    """
    try:
        first = Path('/proc/cpuinfo').read_text().split('\n\n', 1)[0]
    except OSError:
        return platform.processor() or platform.machine()
    fields = (line.partition(':') for line in first.splitlines())
    found = {key.strip(): value.strip() for key, _, value in fields}
    name = found.get('model name', platform.machine())
    if 'cpu family' in found and 'model' in found:
        name += f' (family {found["cpu family"]}, model {found["model"]})'
    return name


def usable_cores() -> int:
    """Returns how many cores this process may use, where the system tells, or else has."""
    if hasattr(os, 'sched_getaffinity'):  # batch systems and containers give a job a part of them
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident_memory() -> int:
    """Returns the bytes that this process has in memory, or its peak outside of Linux."""
    return _status('VmRSS') or _peak_of_process()


def peak_memory() -> int:
    """Returns the largest number of bytes that this process has had in memory."""
    return _status('VmHWM') or _peak_of_process()


def available_memory() -> int:
    """Returns the bytes that processes can still take, where the system tells, or else has.

    Containers and batch systems give a job a part of the machine's.
    """
    try:
        lines = (SYSTEM / 'proc/meminfo').read_text().splitlines()
    except OSError:
        pages = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
        return max(0, pages - resident_memory())
    free = dict(line.split(':') for line in lines)['MemAvailable']
    return min([int(free.split()[0]) * 1024, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """Yields what the control groups of this process leave it."""
    try:
        lines = (SYSTEM / 'proc/self/cgroup').read_text().splitlines()
    except OSError:
        return
    root = SYSTEM / 'sys/fs/cgroup'
    for line in lines:
        _, kinds, name = line.split(':', 2)
        if kinds and 'memory' not in kinds.split(','):
            continue
        top = root / kinds
        own = top / name.lstrip('/')
        # a container may see its own group as the top, under the name that it has outside
        for folder in (own, *own.parents):
            for limit, used, prefix in GROUP_FILES:
                try:
                    left = int((folder / limit).read_text()) - int((folder / used).read_text())
                    statistics = (folder / 'memory.stat').read_text().splitlines()
                except (OSError, ValueError):  # 'max' is no limit
                    continue
                # files in memory make way
                counts = dict(line.split() for line in statistics)
                kept = (int(counts.get(f'{prefix}{k}_file', 0)) for k in ('active', 'inactive'))
                yield max(0, left + sum(kept))
            if folder == top:
                break


def _status(field: str) -> int | None:
    """Returns a field of Linux's process status in bytes, None elsewhere."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f'{field}:')]
    return int(values[0]) * 1024 if values else None


def _peak_of_process() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else 1024 * peak  # Linux counts KiB
