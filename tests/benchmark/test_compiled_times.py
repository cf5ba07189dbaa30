"""A time that is called compiled is of a compiled model."""

import pytest
import torch

from attnpool_backbones.benchmark import machine_rates
from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.timing import measure_times

NANO = dict(model='MetaFormer:nano', size=(64, 64), compiled=True)


@pytest.fixture(autouse=True)
def one_compilation(monkeypatch):
    monkeypatch.setattr(machine_rates, 'SIDE', {'cpu': 32})
    monkeypatch.setattr(machine_rates, 'COPIED_BYTES', {'cpu': 1 << 12})
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=1):
        yield
    torch.compiler.reset()


def graphs():
    return torch._dynamo.utils.counters['stats']['unique_graphs']


def test_models_of_an_earlier_job_do_not_count():
    for _ in range(2):
        before = graphs()
        rows, failures = measure_times([Case(**NANO)], 'cpu', 2, 0)
        assert len(rows) == 1 and not failures
        assert graphs() > before


def test_what_torch_leaves_uncompiled_is_no_row():
    cases = [Case(**NANO), Case(**NANO, layout='channels_last')]
    rows, (failure,) = measure_times(cases, 'cpu', 2, 0)
    assert [row['layout'] for row in rows] == ['contiguous']
    assert 'channels_last compiled cannot be measured' in failure
    assert 'recompile' in failure
