"""Suites and targets belong together, and every model in them exists."""

from dataclasses import asdict, replace

import pytest
import torch

from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.models import REFERENCES, Workload, build_backbone
from attnpool_backbones.benchmark.suites import SUITES, suite_jobs
from attnpool_backbones.benchmark.targets import Target, measured_value, targets
from attnpool_backbones.command_line import UserError

CASE = Case(model='DeepViT:nano')


@pytest.mark.parametrize('name', [*SUITES, 'all'])
def test_jobs_have_names_of_their_own(name):
    jobs = suite_jobs(name)
    names = [(job.quantity, job.name) for job in jobs]
    assert jobs and len(set(names)) == len(names)


@pytest.mark.parametrize('target', targets(), ids=lambda target: target.text)
def test_a_suite_measures_every_target(target):
    jobs = [job for suite in ('all', 'operators', 'predict') for job in suite_jobs(suite)]
    jobs = [job for job in jobs if job.quantity == target.quantity]
    if target.quantity == 'time':
        assert any(set(target.cases) <= set(job.cases) for job in jobs)
    else:
        assert set(target.cases) <= {case for job in jobs for case in job.cases}


def test_models_of_all_suites_can_be_built():
    pytest.importorskip('mmdet')
    models = {case.model for job in suite_jobs('all') for case in job.cases}
    assert set(REFERENCES) < models
    for model in models - {'Swin-T'}:  # its constructor reads values of a tensor
        with torch.device('meta'):
            build_backbone(Case(model=model, with_cp=True))


@pytest.mark.parametrize('model', ['DeepViT:17b', 'DeepVit:16b', 'ResNet-5'])
def test_unknown_model(model):
    with pytest.raises(UserError, match=f"'{model}' must be TYPE:ARCH.*ResNet-50, Swin-T"):
        build_backbone(Case(model=model))


def test_a_train_step_leaves_gradients_and_a_forward_pass_none():
    for task in ('forward', 'train'):
        workload = Workload(replace(CASE, task=task, size=(32, 32)), 'cpu')
        workload.run()
        gradients = [p.grad is not None for p in workload.model.parameters()]
        assert all(gradients) if task == 'train' else not any(gradients)
        workload.clear()
        assert all(p.grad is None for p in workload.model.parameters())


def row(case, seconds=0.0, peak=0, key='a', quantity='time'):
    return dict(asdict(case), key=key, quantity=quantity, seconds=seconds,
                peak_bytes=peak + 100, idle_bytes=100)  # fmt: skip


def test_measured_values():
    plain = replace(CASE, form='plain')
    both = dict(text='', cases=(CASE, plain), bound=2.0)
    speedup, overhead = (Target(kind=kind, **both) for kind in ('speedup', 'overhead'))
    results = [row(CASE, 2.0), row(plain, 5.0), row(plain, 3.0, key='b')]
    assert measured_value(speedup, results) == pytest.approx(2.5)
    assert measured_value(overhead, results) == pytest.approx(-0.6)
    assert measured_value(speedup, [results[0], results[2]]) is None  # not side by side
    assert speedup.is_met(2.5) and not speedup.is_met(1.9)
    assert overhead.is_met(1.9) and not overhead.is_met(2.5)

    cases = tuple(replace(CASE, size=(side, 64)) for side in (64, 128, 256))
    rows = [row(case, peak=case.size[0] ** 2, quantity='memory') for case in cases]
    exponent = Target(text='', kind='exponent', cases=cases, bound=1.1)
    assert measured_value(exponent, rows) == pytest.approx(2)
    assert measured_value(exponent, rows[:2]) is None
    peak = Target(text='', kind='peak', cases=cases[:1], bound=1e9)
    assert measured_value(peak, rows) == 64**2 + 100
