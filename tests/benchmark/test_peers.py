"""Others' models beside ours: built, compared, run by another checkout."""

import importlib.util
import sys
from dataclasses import asdict

import pytest
import torch

from attnpool_backbones.benchmark import peers
from attnpool_backbones.benchmark import run as benchmark_run
from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.models import make_workload
from attnpool_backbones.benchmark.run import run_jobs
from attnpool_backbones.benchmark.suites import peer_jobs
from attnpool_backbones.benchmark.tables import peer_table
from attnpool_backbones.benchmark.torchvision_stand_in import torchvision_or_stand_in
from attnpool_backbones.benchmark.yardstick import HERE
from attnpool_backbones.command_line import UserError

SMALL = dict(size=(64, 64))
OFFICIAL_RESNET = """
import torch
from torch import nn
from .parts import Head

class Net(nn.Module):
    def __init__(self, trunk):
        super().__init__()
        for name in ('conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2', 'layer3', 'layer4'):
            self.add_module(name, getattr(trunk, name))
        self.head = Head()

    def forward(self, x):
        return self.head(nn.Sequential(*list(self.children())[:-1])(x))

def sge_resnet50():
    from attnpool_backbones.backbones import AttnResNet
    return Net(AttnResNet('sge_resnet50'))
"""
HEAD = """
from torch import nn

class Head(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))
"""


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    monkeypatch.setattr(peers, 'COMPARED_SIZE', (64, 64))


@pytest.fixture
def official(tmp_path):
    """A folder that looks like a clone of the authors' code."""
    folder = tmp_path / 'clone' / 'models'
    folder.mkdir(parents=True)
    (folder / 'resnet_sge.py').write_text(OFFICIAL_RESNET)
    (folder / 'parts.py').write_text(HEAD)
    return tmp_path


def test_official_code_is_found_built_and_compared(official):
    case = Case(model='AttnResNet:sge_resnet50', form='official', task='train', **SMALL)
    workload = make_workload(case, 'cpu', dict(official=official))
    workload.run()
    assert workload.difference <= 1e-5
    assert [tuple(y.shape[1:]) for y in workload.gradients] == [
        (256, 16, 16), (512, 8, 8), (1024, 4, 4), (2048, 2, 2)]  # fmt: skip
    assert not workload.model.model.bn1.training  # norm_eval


def test_code_that_differs_behind_scales_of_0_is_told(official):
    file = official / 'clone' / 'models' / 'resnet_sge.py'
    change = """
    trunk = AttnResNet('sge_resnet50')
    for name, module in trunk.named_modules():
        if name.endswith('bn3'):
            nn.init.zeros_(module.weight)
        if name.endswith('bn2'):
            module.eps = 0.5
    return Net(trunk)
"""
    file.write_text(OFFICIAL_RESNET.replace("    return Net(AttnResNet('sge_resnet50'))\n", change))
    places = dict(official=official)
    peer = peers.build_peer('AttnResNet:sge_resnet50', 'official', (64, 64), True, places)
    assert peer.difference > 1e-3


def test_times_of_other_official_code_are_measured_anew(official, monkeypatch):
    measured = []

    def measure(cases, *_):
        measured.append(len(cases))
        return [dict(asdict(case), seconds=1.0) for case in cases], []

    monkeypatch.setattr(benchmark_run, 'measure_times', measure)
    places = dict(official=official / 'clone')
    jobs = peer_jobs([Case(model='AttnResNet:sge_resnet50', **SMALL)], places)
    changes = [(), (), ('models/parts.py', HEAD + 'new = 1'), (), ('unused.py', 'new = 1'),
               ('models/resnet_sge.py', OFFICIAL_RESNET + 'new = 1')]  # fmt: skip
    calls = []
    for change in changes:
        if change:
            (official / 'clone' / change[0]).write_text(change[1])
        run_jobs(jobs, official / 'out', 'cpu', lambda line: None, places=places)
        calls.append(len(measured))
    assert calls == [1, 1, 2, 2, 2, 3]


def test_official_code_that_is_not_there(tmp_path):
    case = Case(model='AttnResNet:sge_resnet50', form='official', **SMALL)
    with pytest.raises(UserError, match='no resnet_sge.py in'):
        make_workload(case, 'cpu', dict(official=tmp_path))
    (tmp_path / 'resnet_sge.py').write_text('')
    with pytest.raises(UserError, match='is not as expected.*sge_resnet50'):
        make_workload(case, 'cpu', dict(official=tmp_path))


def test_mmdets_resnet_computes_the_same():
    pytest.importorskip('mmdet')
    peer = peers.build_peer('AttnResNet:gc_resnet50', 'mmdet', (64, 64), True, {})
    assert peer.difference <= 1e-5
    with pytest.raises(UserError, match='timm has no version of AttnResNet:gc_resnet50'):
        peers.build_peer('AttnResNet:gc_resnet50', 'timm', (64, 64), True, {})


@pytest.mark.parametrize('model', ['AttnResNet:resnet50', 'MetaFormer:poolformer_s24'])
def test_timms_models_compute_the_same(model):
    if importlib.util.find_spec('timm') is None:
        pytest.skip('timm is not installed')
    assert peers.build_peer(model, 'timm', (64, 64), True, {}).difference <= 1e-5


@pytest.mark.slow
def test_another_checkout_runs_in_its_own_process():
    case = Case(model='AttnResNet:nano', form='yardstick', task='train', **SMALL)
    workload = make_workload(case, 'cpu', dict(yardstick=HERE))
    workload.clear()
    workload.run()
    assert workload.difference == 0
    with pytest.raises(UserError, match='cannot run AttnResNet:nano.*float17'):
        wrong = Case(model='AttnResNet:nano', form='yardstick', dtype='float17', **SMALL)
        make_workload(wrong, 'cpu', dict(yardstick=HERE)).run()


def test_no_checkout(tmp_path):
    case = Case(model='AttnResNet:nano', form='yardstick', **SMALL)
    with pytest.raises(UserError, match='no checkout'):
        make_workload(case, 'cpu', dict(yardstick=tmp_path))


def test_torchvision_is_answered_for_only_while_it_is_wanted():
    before = set(sys.modules)
    with torchvision_or_stand_in() as stands_in:
        if not stands_in:
            pytest.skip('torchvision is installed')
        from torchvision.ops.misc import FrozenBatchNorm2d
        from torchvision.transforms import InterpolationMode

        assert not isinstance(torch.nn.Identity(), FrozenBatchNorm2d)
        assert InterpolationMode.BICUBIC
        with pytest.raises(ImportError, match='FrozenBatchNorm2d needs torchvision'):
            FrozenBatchNorm2d(3)
    assert not [name for name in set(sys.modules) - before if name.startswith('torchvision')]


def test_a_job_has_everyone_in_both_layouts_and_a_row_says_who_is_fastest():
    case = Case(model='AttnResNet:resnet50')
    (job,) = peer_jobs([case, Case(model='AttnResNet:nano')], {})
    assert [(c.form, c.layout) for c in job.cases] == [
        (form, layout)
        for form in ('ours', 'timm', 'mmdet')
        for layout in ('contiguous', 'channels_last')
    ]
    rows = [
        dict(model=c.model, form=c.form, task=c.task, size=c.size, batch=1, dtype='float32',
             layout=c.layout, compiled=False, with_cp=False, norm_eval=True, key='k',
             seconds=seconds, difference=None if c.form == 'mmdet' else 2e-7)
        for c, seconds in zip(job.cases, (2.0, 1.5, 4.0, 3.0, 5.0, 1.0), strict=True)
    ]  # fmt: skip
    line = peer_table(rows).splitlines()[-1]
    assert '| 2 | 1.5 | mmdet channels_last 1 | 0.50 | mmdet channels_last |' in line
    assert 'timm 2e-07; mmdet not comparable' in line
    rows[-1]['seconds'] = 2.5
    assert '| 1.25 | **ours** |' in peer_table(rows)
    assert peer_table(rows[:2]) == ''


def test_a_compiled_row_says_how_much_faster_ours_is_than_eager():
    (job,) = peer_jobs([Case(model='AttnResNet:se_resnet50', compiled=True)], {})
    *compiled, eager = job.cases
    assert [c.form for c in compiled] == ['ours'] * 2 + ['timm'] * 2
    assert all(c.compiled for c in compiled)
    assert eager == Case(model='AttnResNet:se_resnet50')
    rows = [
        dict(asdict(c), key='k', seconds=seconds, difference=2e-7)
        for c, seconds in zip(job.cases, (2.0, 1.5, 4.0, 3.0, 2.5), strict=True)
    ]
    header, _, line = peer_table(rows).splitlines()
    cells = dict(zip(header.split(' | '), line.split(' | '), strict=True))
    assert cells['our eager / ours'] == '1.25'
    assert cells['ours channels_last s'] == '1.5' and cells['theirs / ours'] == '1.50'
    assert 'yardstick / ours' not in cells
