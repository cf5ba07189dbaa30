"""Operators as workloads of the benchmark."""

import importlib

import pytest
import torch

from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.models import make_workload
from attnpool_backbones.benchmark.operators import OPERATORS, PREFIX, OperatorWorkload, memory_of
from attnpool_backbones.command_line import UserError

SMALL = {name: (6, 8) for name in OPERATORS} | dict(nms=(40, 3), softnms=(40, 1))


@pytest.mark.parametrize('name', OPERATORS)
def test_every_operator_runs(name):
    case = Case(model=PREFIX + name, size=SMALL[name])
    workload = make_workload(case, 'cpu')
    assert isinstance(workload, OperatorWorkload)
    workload.run()
    _, arguments = workload.calls[0]
    written = [arguments[k] for k in ('output', 'ious', 'dets') if k in arguments]
    assert all(torch.isfinite(t).all() and t.any() for t in written if t.dim() != 2)


@pytest.mark.parametrize('name', ['roi_align', 'roi_align_max', 'deform_conv', 'psamask'])
def test_backward_passes_run(name):
    workload = make_workload(Case(model=PREFIX + name, size=(6, 8), task='backward'), 'cpu')
    workload.run()
    grads = [v for _, args in workload.calls for k, v in args.items() if 'grad' in k.lower()]
    assert all(grad.any() for grad in grads)


def test_what_cannot_run_says_why(monkeypatch):
    with pytest.raises(UserError, match="unknown operator 'mmcv.knn', choose from"):
        make_workload(Case(model='mmcv.knn'), 'cpu')
    with pytest.raises(UserError, match='has no backward pass'):
        make_workload(Case(model='mmcv.nms', size=(9, 1), task='backward'), 'cpu')
    ours = importlib.import_module('attnpool_backbones.mmcv_operators.extension')
    module = 'attnpool_backbones.benchmark.operators.importlib.import_module'
    monkeypatch.setattr(module, lambda name: ours)
    with pytest.raises(UserError, match='no compiled operators here.*OPS=compiled'):
        make_workload(Case(model='mmcv.nms', size=(9, 1), form='compiled'), 'cpu')


def test_memory_is_that_of_map_and_result():
    case = Case(model='mmcv.roi_align', size=(10, 20))
    assert memory_of(case) == 4 * 256 * (10 * 20 + 512 * 7 * 7)
