"""Peak memory of one case, in a process of its own.

Run as ``python -m attnpool_backbones.benchmark.memory_peak CASES_AS_JSON DEVICE THREADS``.
"""

import gc
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from attnpool_backbones.benchmark.case_process import run_case_module, serve
from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.models import make_workload
from attnpool_backbones.benchmark.operators import TINY, is_operator
from attnpool_backbones.machine import peak_memory, resident_memory
from attnpool_backbones.process_memory import return_free_memory


def measure_memory(case: Case, device: str) -> dict[str, Any]:
    """Runs a case once in a fresh process and asks for its largest memory.

    Args:
        case: What to run.
        device: ``'cpu'`` (resident memory of the process) or ``'cuda'`` (torch's allocator).

    Returns:
        The fields of the case, ``peak_bytes`` (of the process, libraries and weights included) and
        ``idle_bytes`` (before the run). An operator ran once on a tiny map before.

    Raises:
        UserError: The process failed, e.g. for want of memory.
    """
    (found,) = run_case_module(__name__, 'the memory', [case], device)
    return dict(asdict(case), **found)


def peak_here(case: Case, device: str) -> dict[str, int]:
    """Runs a case once in this process; see :func:`measure_memory`."""
    workload = make_workload(case, device)
    if is_operator(case.model):  # its bound is of its maps alone: the code is loaded before
        make_workload(replace(case, size=TINY), device).run()
    gc.collect()
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        idle = torch.cuda.memory_allocated()
        workload.run()
        return dict(peak_bytes=torch.cuda.max_memory_allocated(), idle_bytes=idle)
    return_free_memory()  # of the building of the model
    _reset_peak()
    idle = resident_memory()
    workload.run()
    return dict(peak_bytes=peak_memory(), idle_bytes=idle)


def _reset_peak() -> None:
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        pass  # The peak is then that of the whole process, the building of the model included.


if __name__ == '__main__':
    serve(peak_here)
