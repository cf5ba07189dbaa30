"""Peak memory of one case, in a process of its own.

    python -m attnpool_backbones.analysis.memory_peak CASE_AS_JSON DEVICE THREADS
"""  # fmt: skip

import gc
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from attnpool_backbones.analysis.benchmark_cases import Case
from attnpool_backbones.analysis.benchmark_models import Workload
from attnpool_backbones.analysis.process_memory import return_free_memory
from attnpool_backbones.command_line import UserError


def measure_memory(case: Case, device: str, threads: int) -> dict[str, Any]:
    """Runs a case once in a fresh process and asks for its largest memory.

    Args:
        case: What to run.
        device: ``'cpu'`` (resident memory of the process) or ``'cuda'`` (torch's allocator).
        threads: Of torch, on the CPU.

    Returns:
        The fields of the case, ``peak_bytes`` (of the process, libraries and weights included) and
        ``idle_bytes`` (before the run).

    Raises:
        UserError: The process failed, e.g. for want of memory.
    """
    arguments = [json.dumps(asdict(case)), device, str(threads)]
    # -I would hide the package of a clone that is not installed.
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
    done = subprocess.run(
        [sys.executable, '-m', 'attnpool_backbones.analysis.memory_peak', *arguments],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(paths)),
    )
    if done.returncode:
        reason = 'it was killed, perhaps for want of memory' if done.returncode < 0 else ''
        last = (done.stderr.strip().splitlines() or [''])[-1]
        raise UserError(f'the memory of {case.label()} cannot be measured: {reason or last}')
    return dict(asdict(case), **json.loads(done.stdout.splitlines()[-1]))


def peak_here(case: Case, device: str) -> dict[str, int]:
    """Runs a case once in this process; see :func:`measure_memory`."""
    workload = Workload(case, device)
    gc.collect()
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        idle = torch.cuda.memory_allocated()
        workload.run()
        return dict(peak_bytes=torch.cuda.max_memory_allocated(), idle_bytes=idle)
    return_free_memory()  # of the building of the model
    _reset_peak()
    idle = _status('VmRSS') or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    workload.run()
    peak = _status('VmHWM') or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return dict(peak_bytes=peak, idle_bytes=idle)


def _reset_peak() -> None:
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        pass  # The peak is then that of the whole process, the building of the model included.


def _status(field: str) -> int | None:
    """Returns a field of Linux's process status in bytes, None elsewhere."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f'{field}:')]
    return int(values[0]) * 1024 if values else None


if __name__ == '__main__':
    torch.set_num_threads(int(sys.argv[3]))
    print(json.dumps(peak_here(Case.from_dict(json.loads(sys.argv[1])), sys.argv[2])))
