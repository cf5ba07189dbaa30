"""Times of several cases, interleaved in one process."""

import gc
import statistics
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.gpu_costs import gpu_costs
from attnpool_backbones.benchmark.machine_rates import MachineRates
from attnpool_backbones.benchmark.models import make_workload
from attnpool_backbones.benchmark.operation_counts import count_operations
from attnpool_backbones.benchmark.yardstick import APART
from attnpool_backbones.command_line import UserError
from attnpool_backbones.process_memory import fresh_bytes, has_small_pages, return_free_memory

MIN_ROUNDS = 2
MESSAGE = 300  # characters; torch.compile's errors are pages long


def measure_times(
    cases: Sequence[Case],
    device: str,
    repeats: int = 7,
    warmup: int = 1,
    seconds: float = 120,
    places: Mapping[str, Path] | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measures cases in turns, so that a slower moment of the machine meets all of them.

    A round runs each case once (every other round in reverse order), one matrix product of each
    type and one copy. Gradients are cleared outside the measured time. A case that cannot be built
    or run at all is left out.

    Args:
        cases: What to measure.
        device: ``'cpu'`` or ``'cuda'``.
        repeats: Rounds.
        warmup: Rounds before these, not counted; each case has run once by then.
        seconds: No round but the second begins later than so long after the first did.
        places: See :func:`attnpool_backbones.benchmark.peers.forms_of`. Default: none.

    Returns:
        For each case that runs its fields, ``seconds`` (median), ``spread`` (interquartile range
        over median), ``rounds``, ``fresh`` (median of the bytes of memory that the process had to
        ask for; None in another process and where the system gives huge pages), ``macs`` (of a
        forward pass), ``traffic`` (bytes), ``parts`` (seconds of backbone and neck in a detector
        or segmentor), ``loading`` (seconds in which one process loads its batch, see
        :func:`loading_seconds`), ``difference`` (of a peer's outputs from ours, None if not
        compared), on a GPU what :func:`gpu_costs` finds, and
        the machine's ``matrix_rate`` (FLOP/s, in the case's type) and ``copy_rate`` (bytes/s) in
        the same rounds; and a message about each that does not.

    Raises:
        UserError: A case failed after its first run, e.g. for want of memory beside the others.
    """
    return_free_memory()  # of the job before
    if any(case.compiled for case in cases):
        torch.compiler.reset()  # it compiles a function eight times, also of earlier jobs
    workloads, failures = [], []
    for case in cases:
        try:
            with _named_failure(case):
                workload = make_workload(case, device, places)
                workload.run()
            workloads.append(workload)
        except UserError as error:
            failures.append(str(error))
    if not workloads:
        return [], failures
    counts = count_operations([workload.case for workload in workloads], device)
    matrix: dict[str, list[float]] = {workload.case.dtype: [] for workload in workloads}
    rates = MachineRates(device, matrix)
    for workload in workloads * warmup:
        with _named_failure(workload.case):
            workload.clear()
            workload.run()
    for dtype in matrix:
        rates.matrix_rate(dtype)
    rates.copy_rate()
    costs = [_gpu_costs(workload, device) for workload in workloads]

    times: list[list[float]] = [[] for _ in workloads]
    fresh: list[list[int]] = [[] for _ in workloads]
    parts: list[list[dict[str, float]]] = [[] for _ in workloads]
    copy = []
    began = time.perf_counter()
    gc.collect()
    gc.disable()  # a collection would fall into one case's time
    try:
        for index in range(repeats):
            if index >= MIN_ROUNDS and time.perf_counter() - began > seconds:
                break
            order = range(len(workloads))
            for i in reversed(order) if index % 2 else order:
                with _named_failure(workloads[i].case):
                    workloads[i].clear()
                    if (watched := getattr(workloads[i], 'parts', None)) is not None:
                        watched.take()  # what ran before is not of this round
                    had, started = fresh_bytes(), time.perf_counter()
                    workloads[i].run()
                    times[i].append(time.perf_counter() - started)
                    if watched is not None:
                        parts[i].append(watched.take())
                    fresh[i].append(fresh_bytes() - had)
            for dtype, measured in matrix.items():
                measured.append(rates.matrix_rate(dtype))
            copy.append(rates.copy_rate())
            gc.collect()
    finally:
        gc.enable()
    matrix_rates = {dtype: statistics.median(measured) for dtype, measured in matrix.items()}
    rows = [
        dict(asdict(workload.case), seconds=statistics.median(values), spread=_spread(values),
             rounds=len(values), fresh=_pages(workload.case, pages),
             parts=_medians(found), loading=getattr(workload, 'loading', None),
             difference=getattr(workload, 'difference', None), **count, **cost,
             matrix_rate=matrix_rates[workload.case.dtype], copy_rate=statistics.median(copy))
        for workload, values, pages, found, count, cost in zip(
            workloads, times, fresh, parts, counts, costs, strict=True
        )
    ]  # fmt: skip
    return rows, failures


@contextmanager
def _named_failure(case: Case) -> Iterator[None]:
    """Makes a message of whatever a network raises, at a size that it cannot take, say.

    What torch would leave uncompiled, as it has compiled one function too often, is a failure too.
    """
    try:
        with (
            torch._dynamo.config.patch(fail_on_recompile_limit_hit=True)
            if case.compiled
            else nullcontext()
        ):
            yield
    except UserError:
        raise
    except Exception as error:
        reason = textwrap.shorten(f'{type(error).__name__}: {error}', MESSAGE, placeholder=' ...')
        raise UserError(f'the time of {case.label()} cannot be measured: {reason}') from error


def _gpu_costs(workload: Any, device: str) -> dict[str, float]:
    if device != 'cuda' or workload.case.form in APART:  # those run in processes of their own
        return {}
    with _named_failure(workload.case):
        return gpu_costs(workload.run, workload.clear)


def _medians(found: Sequence[dict[str, float]]) -> dict[str, float]:
    names = found[0] if found else ()
    return {name: statistics.median(row[name] for row in found) for name in names}


def _pages(case: Case, pages: Sequence[int]) -> float | None:
    known = has_small_pages() and case.form not in APART
    return statistics.median(pages) if known else None


def _spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
    return (high - low) / middle
