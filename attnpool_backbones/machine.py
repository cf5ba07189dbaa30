"""What this machine is, and how much memory this process takes of it."""

import os
import platform
import resource
import sys
from pathlib import Path

__all__ = ['peak_memory', 'processor_name', 'resident_memory', 'usable_cores']


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
