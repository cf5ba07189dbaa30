"""Arithmetic and memory traffic of cases, counted on a CPU in a process of its own.

    python -m attnpool_backbones.benchmark.operation_counts CASES_AS_JSON DEVICE THREADS

What the counting allocates would otherwise serve the runs that are measured afterwards.
"""  # fmt: skip

from collections.abc import Sequence

from attnpool_backbones.benchmark.case_process import run_case_module, serve
from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.memory_traffic import count_traffic
from attnpool_backbones.benchmark.models import make_workload
from attnpool_backbones.benchmark.peers import FORMS as PEER_FORMS
from attnpool_backbones.zoo.complexity import count_macs


def count_operations(cases: Sequence[Case], device: str) -> list[dict[str, int]]:
    """Counts what cases do.

    Args:
        cases: What to run.
        device: ``'cpu'`` or ``'cuda'``.

    Returns:
        For each ``macs`` of a forward pass and ``traffic``, bytes of the task; both 0 for an
        operator, for a command, for a peer, whose arithmetic is ours, and for a
        compiled case, since a compiler fuses what would be counted.

    Raises:
        UserError: The process failed.
    """
    if device == 'cuda':  # whose allocator serves the measured runs in any case
        return [counts_here(case, device) for case in cases]
    return run_case_module(__name__, 'the arithmetic', cases, device)


def counts_here(case: Case, device: str) -> dict[str, int]:
    """Counts in this process; see :func:`count_operations`."""
    if case.compiled or not case.is_network or case.form in PEER_FORMS:
        return dict(macs=0, traffic=0)
    workload = make_workload(case, device)
    macs = count_macs(workload.forward)
    workload.clear()
    return dict(macs=macs, traffic=count_traffic(workload.run))


if __name__ == '__main__':
    serve(counts_here)
