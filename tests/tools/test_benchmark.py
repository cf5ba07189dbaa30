"""The benchmark's command line, on nano backbones."""

import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from attnpool_backbones.benchmark import machine_rates
from attnpool_backbones.benchmark.suites import SUITES
from attnpool_backbones.command_line import run_command

FAST = ['--repeats', '2', '--warmup', '0']


@pytest.fixture
def tool(repo_root):
    path = repo_root / 'tools' / 'analysis_tools' / 'benchmark.py'
    spec = importlib.util.spec_from_file_location('tools_benchmark', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool, monkeypatch, capsys):
    """Runs the tool with arguments; returns its exit code and what it printed."""
    monkeypatch.setitem(machine_rates.SIDE, 'cpu', 64)
    monkeypatch.setitem(machine_rates.COPIED_BYTES, 'cpu', 1 << 16)

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *map(str, arguments)])
        try:
            code = run_command(tool.main)
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def test_measures_compares_and_goes_on(run, tmp_path):
    arguments = ['PatchConvNet:nano', 'DeepViT:nano', '--plain', '--memory', *FAST,
                 '--size', '64x64', '64x96', '96x96', '--out', tmp_path]  # fmt: skip
    code, text = run(*arguments, '--time-limit', 0)
    assert code == 0 and '14 jobs are left' in text
    assert len(json.loads((tmp_path / 'results.json').read_text())['results']) == 4

    code, text = run(*arguments, '--only', '^time')
    assert code == 0 and '1 of 3 jobs were measured before' in text
    results = json.loads((tmp_path / 'results.json').read_text())['results']
    assert len(results) == 12
    assert all(r['seconds'] > 0 and r['macs'] > 0 and r['traffic'] > 0 for r in results)
    assert all(r['rounds'] == 2 for r in results)
    by_form = {(r['model'], r['form']): r['macs'] for r in results if r['size'] == [64, 64]}
    assert by_form['DeepViT:nano', 'ours'] == pytest.approx(by_form['DeepViT:nano', 'plain'], 0.01)

    code, text = run(*arguments, '--only', '^memory of PatchConvNet:nano ours forward 64x64')
    assert code == 0
    report = (tmp_path / 'report.md').read_text()
    assert '## Memory' in report and '## Times' not in report  # what this call asks for
    code, text = run(*arguments, '--time-limit', 0)
    assert code == 0 and '4 of 15 jobs were measured before' in text
    report = (tmp_path / 'report.md').read_text()
    for heading in ('## Times', '## Memory', '## Cost over resolution'):
        assert heading in report
    tables = [line for line in report.splitlines() if line.startswith('|')]
    widths = [line.count('|') for line in tables]
    assert all(widths) and len(tables) == 2 + 12 + 2 + 2 + 2 + 4
    rows = list(csv.DictReader((tmp_path / 'results.csv').open()))
    assert len(rows) == 14
    ours = next(r for r in rows if r['form'] == 'ours')
    plain = next(r for r in rows if r['form'] == 'plain' and r['model'] == ours['model'])
    expected = float(plain['seconds']) / float(ours['seconds'])
    assert float(ours['plain / this']) == pytest.approx(expected)
    memory = next(r for r in rows if r['quantity'] == 'memory')
    assert 0 < int(memory['idle_bytes']) < int(memory['peak_bytes'])
    for name in ('speed.png', 'cost.png'):
        assert (tmp_path / name).read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'nothing to measure'),
        (['DeepViT:17b', '--size', '32x32'], "'DeepViT:17b' must be TYPE:ARCH"),
        (['--suite', 'nano', '--only', 'ViTDet'], "--only 'ViTDet' finds none of the 14 jobs"),
        (['--suite', 'nano', '--only', '('], 'is no regular expression'),
        (['DeepViT:nano', '--size', '64'], "'64' is not HEIGHTxWIDTH"),
        (['DeepViT:nano', '--repeats', '0'], "'0' is no whole number from 1 to"),
        (['nothing.py'], 'config not found'),
        (['AttnResNet:resnet50', '--peers', '--with-cp'], '--with-cp: the models of mmdet, timm'),
        (['DeepViT:nano', '--publish', 'nothing.md'], '--publish nothing.md is no file'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_message(run, tmp_path, arguments, message):
    pytest.importorskip('mmdet')
    code, text = run(*arguments, '--out', tmp_path / 'out')
    assert code == 2 and message in text and 'Traceback' not in text
    assert not (tmp_path / 'out').exists()


CHANGES = {
    'nothing': (lambda config, package: [], 1),
    'repeats': (lambda config, package: ['--repeats', '3'], 0),
    'warmup': (lambda config, package: ['--warmup', '1'], 0),
    'seconds': (lambda config, package: ['--seconds', '9'], 0),
    'the code': (lambda config, package: (package / 'a.py').write_text('x = 2') and [], 0),
    'the config': (lambda config, package: config.write_text('x = 2') and [], 0),
}


@pytest.mark.parametrize('name', CHANGES)
def test_what_other_code_or_options_measured_is_measured_again(run, tmp_path, monkeypatch, name):
    from attnpool_backbones import config_files
    from attnpool_backbones.benchmark import run as benchmark_run

    rounds = iter((5, 6))

    def measure(cases, *_):
        row = dict(seconds=1.0, spread=0.0, fresh=0, macs=0, traffic=0, matrix_rate=1, copy_rate=1)
        return [dict(asdict(case), **row, rounds=next(rounds)) for case in cases], []

    change, known = CHANGES[name]
    package, config = tmp_path / 'package', tmp_path / 'config.py'
    package.mkdir()
    for file in (package / 'a.py', config):
        file.write_text('x = 1')
    monkeypatch.setattr(config_files, '_PACKAGE', package)
    monkeypatch.setattr(config_files, 'config_root', lambda: package)
    monkeypatch.setattr(benchmark_run, 'measure_times', measure)
    arguments = [config, '--out', tmp_path / 'out', *FAST]
    assert run(*arguments)[0] == 0
    code, text = run(*arguments, *change(config, package))
    assert code == 0 and ('1 of 1 jobs were measured before' in text) == bool(known)
    (row,) = json.loads((tmp_path / 'out' / 'results.json').read_text())['results']
    assert row['rounds'] == (5 if known else 6) and row['date'] and 'config.py' in row['command']


def test_results_of_a_version_that_did_not_keep_how_are_measured_again(run, tmp_path):
    arguments = ['DeepViT:nano', '--size', '32x32', *FAST, '--out', tmp_path]
    assert run(*arguments)[0] == 0
    file = tmp_path / 'results.json'
    content = json.loads(file.read_text())
    for row in content['results']:
        del row['origin'], row['date'], row['command']
    file.write_text(json.dumps(content))
    code, text = run(*arguments)
    assert code == 0 and 'measured before' not in text
    assert len(json.loads(file.read_text())['results']) == 1


def test_a_report_has_what_its_call_asked_for(run, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(''.join(f'<!-- {s} -->\n<!-- /{s} -->\n' for s in ('default', 'sizes')))
    arguments = ['--size', '32x32', '32x64', '64x64', *FAST, '--out', tmp_path]
    for model in ('DeepViT:nano', 'PatchConvNet:nano'):
        code, text = run(model, *arguments, '--publish', page)
        assert code == 0, text
    assert len(json.loads((tmp_path / 'results.json').read_text())['results']) == 6
    for file in (tmp_path / 'report.md', tmp_path / 'results.csv', page):
        assert 'PatchConvNet:nano' in file.read_text() and 'DeepViT' not in file.read_text()


def test_results_of_another_machine_are_kept(run, tmp_path):
    (tmp_path / 'results.json').write_text('{"machine": {"torch": "1.0"}, "results": []}')
    code, text = run('DeepViT:nano', '--out', tmp_path)
    assert code == 2 and "torch '1.0', now" in text and 'another --out' in text
    assert '1.0' in (tmp_path / 'results.json').read_text()


def test_keep_memory(run, tmp_path, monkeypatch):
    from attnpool_backbones.benchmark import run as benchmark_run

    arguments = ['DeepViT:nano', '--size', '32x32', *FAST, '--out', tmp_path]
    monkeypatch.setattr(benchmark_run, 'keep_free_memory', lambda: True)
    code, text = run(*arguments, '--keep-memory')
    assert code == 0 and 'free memory kept' in (tmp_path / 'report.md').read_text()
    code, text = run(*arguments)
    assert code == 2 and "free memory 'kept', now None" in text
    monkeypatch.setattr(benchmark_run, 'keep_free_memory', lambda: False)
    code, text = run(*arguments, '--keep-memory')
    assert code == 2 and '--keep-memory needs the C library glibc' in text


PRELOADING = """
import runpy, sys
from pathlib import Path
from attnpool_backbones.command_line import run_command
preload = runpy.run_path(sys.argv[1])['preload']
code = run_command(lambda: preload(Path(sys.argv[2])))
print(Path('/proc/self/maps').read_text() if not code else '')
sys.exit(code)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='LD_PRELOAD, /proc')
@pytest.mark.parametrize(
    ('library', 'loaded'),
    [
        ('libcopy.so.6', 'here/libcopy.so.6'),
        ('./liblink.so', 'here/libcopy.so.6'),
        ('libm.so.6', 'libm.so.6'),
        ('here/missing.so', '--preload here/missing.so is no file'),
        ('missing.so', '--preload missing.so was not loaded'),
        ('text.so', '--preload text.so was not loaded'),
    ],
)
def test_preload(library, loaded, tmp_path, repo_root):
    (path,) = set(re.findall(r'/\S+/libm[-.]\S*', Path('/proc/self/maps').read_text()))
    folder = tmp_path / 'here'
    folder.mkdir()
    shutil.copy(path, folder / 'libcopy.so.6')
    (folder / 'liblink.so').symlink_to('libcopy.so.6')
    (folder / 'text.so').write_text('no library')
    (folder / 'script.py').write_text(PRELOADING)
    tool = repo_root / 'tools' / 'analysis_tools' / 'benchmark.py'
    done = subprocess.run(
        [sys.executable, 'script.py', tool, library],
        cwd=folder,
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != 'LD_LIBRARY_PATH'},
    )
    assert loaded in (done.stderr if '--preload' in loaded else done.stdout), done.stderr
    assert done.returncode == (2 if '--preload' in loaded else 0)


def test_list(run, tmp_path):
    code, text = run('--suite', 'targets', '--list', '--out', tmp_path / 'out')
    assert code == 0 and 'time of DeepViT:16b train 512x512' in text
    assert not (tmp_path / 'out').exists()


def test_suites_of_the_command_line(tool):
    assert tool.SUITES == (*SUITES, 'all')


@pytest.mark.slow
@pytest.mark.parametrize(
    'config',
    [
        'mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py',
        'upernet_patchconvnet-nano_slim_digit-scenes.py',
    ],
)
def test_detector_and_segmentor(run, tmp_path, repo_root, config):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    file = repo_root / 'configs' / 'patchconvnet' / config
    code, text = run(file, '--plain', '--task', 'forward', 'train', '--size', '96x96', *FAST,
                     '--batch', '2', '--out', tmp_path)  # fmt: skip
    assert code == 0, text
    assert len(json.loads((tmp_path / 'results.json').read_text())['results']) == 4


def test_a_case_that_fails_does_not_end_the_others(run, tmp_path, monkeypatch):
    from attnpool_backbones.benchmark import run as benchmark_run
    from attnpool_backbones.command_line import UserError

    def fail_at_deepvit(case, device):
        if case.model == 'DeepViT:nano':
            raise UserError('no memory left')
        return dict(asdict(case), peak_bytes=2, idle_bytes=1)

    monkeypatch.setattr(benchmark_run, 'measure_memory', fail_at_deepvit)
    code, text = run('DeepViT:nano', 'PatchConvNet:nano', '--memory', '--only', '^memory',
                     '--out', tmp_path)  # fmt: skip
    assert code == 2 and 'error: no memory left' in text
    results = json.loads((tmp_path / 'results.json').read_text())['results']
    assert [r['model'] for r in results] == ['PatchConvNet:nano']


# What fails -> options under which DeepViT cannot run and PatchConvNet can, part of the message.
FAILURES = {
    'an architecture': (['DeepViT:17b', '--size', '64x64'], "'DeepViT:17b' must be TYPE:ARCH"),
}


@pytest.mark.parametrize('name', FAILURES)
def test_a_time_that_cannot_be_measured_does_not_end_the_others(run, tmp_path, name):
    options, message = FAILURES[name]
    arguments = ['PatchConvNet:nano', 'CoAtNet:nano', *options, *FAST, '--out', tmp_path]
    for _ in range(2):  # the second call fails, too: it does not take half a job for a whole one
        code, text = run(*arguments)
        assert code == 2 and message in text and 'Traceback' not in text
        assert text.splitlines()[-1].startswith('error: ')
        results = json.loads((tmp_path / 'results.json').read_text())['results']
        measured = [(r['model'], r['size'], r['rounds']) for r in results]
        assert measured == [(m, [64, 64], 2) for m in ('PatchConvNet:nano', 'CoAtNet:nano')]
        assert 'CoAtNet:nano' in (tmp_path / 'report.md').read_text()


def test_a_failure_beside_the_others_ends_the_job_only(run, tmp_path, monkeypatch):
    from attnpool_backbones.benchmark.models import Workload

    step, calls = Workload.run, []

    def fail_later(self):
        calls.append(self.case.model)
        if self.case.size == (64, 64) and calls.count('DeepViT:nano') > 1:
            raise RuntimeError('no memory ' * 100)
        step(self)

    monkeypatch.setattr(Workload, 'run', fail_later)
    code, text = run('DeepViT:nano', '--size', '64x64', '64x96', *FAST, '--out', tmp_path)
    assert code == 2 and 'DeepViT:nano ours forward 64x64 cannot be measured' in text
    assert len(text.splitlines()[-1]) < 400
    results = json.loads((tmp_path / 'results.json').read_text())['results']
    assert [r['size'] for r in results] == [[64, 96]]
