"""Parts of a detector or segmentor are timed in the rounds that count, and in no other."""

import time

import torch
from torch import nn

from attnpool_backbones.benchmark import timing
from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.part_times import PARTS, PartTimes


class SlowAtFirst(nn.Conv2d):
    """A convolution whose first call takes long, as a library's does."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 1:
            time.sleep(0.5)
        return super().forward(x)


class Trained:
    """What the benchmark runs: a model with parts, in a train step."""

    def __init__(self, case):
        self.case = case
        self.model = nn.Module()
        self.model.backbone, self.model.neck = SlowAtFirst(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.parts = PartTimes(self.model)

    def clear(self):
        self.model.zero_grad(set_to_none=True)

    def run(self):
        self.model.neck(self.model.backbone(torch.ones(1, 3, 8, 8))).sum().backward()


def test_what_ran_before_the_rounds_is_not_of_them(monkeypatch):
    monkeypatch.setattr(timing, 'make_workload', lambda case, *_: Trained(case))
    monkeypatch.setattr(timing, 'count_operations', lambda cases, device: [{} for _ in cases])
    rows, failures = timing.measure_times([Case(model='x.py', task='train')], 'cpu', 2, 0)
    assert not failures
    assert rows[0]['parts'].keys() == set(PARTS)
    assert sum(rows[0]['parts'].values()) <= rows[0]['seconds'] < 0.5
