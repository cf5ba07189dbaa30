"""What a machine can do at best is told of the type that was computed in."""

import pytest

from attnpool_backbones.benchmark import machine_rates, timing
from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.machine_rates import MachineRates


class Nothing:
    def __init__(self, case):
        self.case = case

    def clear(self):
        pass

    run = clear


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(machine_rates, 'SIDE', {'cpu': 32})
    monkeypatch.setattr(machine_rates, 'COPIED_BYTES', {'cpu': 1 << 12})


@pytest.mark.parametrize('first', ['float32', 'bfloat16'])
def test_each_case_has_the_rate_of_its_type(first, monkeypatch):
    rates = dict(float32=1e9, bfloat16=4e9)
    monkeypatch.setattr(MachineRates, 'matrix_rate', lambda self, dtype='float32': rates[dtype])
    monkeypatch.setattr(timing, 'make_workload', lambda case, *_: Nothing(case))
    monkeypatch.setattr(timing, 'count_operations', lambda cases, device: [{} for _ in cases])
    second = {'float32': 'bfloat16', 'bfloat16': 'float32'}[first]
    cases = [Case(model='CoAtNet:0', dtype=dtype) for dtype in (first, second)]
    rows, _ = timing.measure_times(cases, 'cpu', 2, 0)
    assert [(row['dtype'], row['matrix_rate']) for row in rows] == [
        (dtype, rates[dtype]) for dtype in (first, second)
    ]


def test_rates_are_measured_in_each_type():
    rates = MachineRates('cpu', ['float32', 'bfloat16'])
    assert all(rates.matrix_rate(dtype) > 0 for dtype in ('float32', 'bfloat16'))
    assert rates.copy_rate() > 0
