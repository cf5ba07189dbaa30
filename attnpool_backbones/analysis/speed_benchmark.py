"""Times of several cases, interleaved in one process."""

import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from attnpool_backbones.analysis.benchmark_cases import Case
from attnpool_backbones.analysis.benchmark_models import Workload
from attnpool_backbones.analysis.complexity import count_macs
from attnpool_backbones.analysis.machine_rates import MachineRates
from attnpool_backbones.analysis.memory_traffic import count_traffic

MIN_ROUNDS = 2


def measure_times(
    cases: Sequence[Case],
    device: str,
    repeats: int = 7,
    warmup: int = 1,
    seconds: float = 120,
) -> list[dict[str, Any]]:
    """Measures cases in turns, so that a slower moment of the machine meets all of them.

    A round runs each case once (every other round in reverse order), one matrix product and one
    copy. Gradients are cleared outside the measured time.

    Args:
        cases: What to measure.
        device: ``'cpu'`` or ``'cuda'``.
        repeats: Rounds.
        warmup: Rounds before these, not counted; the counting of operations warms up, too.
        seconds: No round but the second begins later than so long after the first did.

    Returns:
        For each case its fields, ``seconds`` (median), ``spread`` (interquartile range over
        median), ``rounds``, ``macs`` (of a forward pass), ``traffic`` (bytes), and the machine's
        ``matrix_rate`` (FLOP/s) and ``copy_rate`` (bytes/s) in the same rounds.
    """
    workloads = [Workload(case, device) for case in cases]
    rates = MachineRates(device, getattr(torch, cases[0].dtype))
    counts = [_count(workload) for workload in workloads]
    for workload in workloads * warmup:
        workload.clear()
        workload.run()
    rates.matrix_rate(), rates.copy_rate()

    times: list[list[float]] = [[] for _ in cases]
    matrix, copy = [], []
    began = time.perf_counter()
    gc.collect()
    gc.disable()  # a collection would fall into one case's time
    try:
        for index in range(repeats):
            if index >= MIN_ROUNDS and time.perf_counter() - began > seconds:
                break
            order = range(len(cases))
            for i in reversed(order) if index % 2 else order:
                workloads[i].clear()
                started = time.perf_counter()
                workloads[i].run()
                times[i].append(time.perf_counter() - started)
            matrix.append(rates.matrix_rate())
            copy.append(rates.copy_rate())
            gc.collect()
    finally:
        gc.enable()
    shared = dict(matrix_rate=statistics.median(matrix), copy_rate=statistics.median(copy))
    return [
        dict(asdict(case), seconds=statistics.median(values), spread=_spread(values),
             rounds=len(values), **count, **shared)
        for case, values, count in zip(cases, times, counts, strict=True)
    ]  # fmt: skip


def _count(workload: Workload) -> dict[str, int]:
    if workload.case.compiled:  # a compiler fuses what would be counted
        workload.run()
        return dict(macs=0, traffic=0)
    macs = count_macs(workload.forward)
    workload.clear()
    return dict(macs=macs, traffic=count_traffic(workload.run))


def _spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
    return (high - low) / middle
