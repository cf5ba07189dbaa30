"""What a benchmark publishes."""

from dataclasses import asdict

import pytest

from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.operators import memory_of
from attnpool_backbones.benchmark.publishing import publish
from attnpool_backbones.benchmark.suites import against_plain, suite_jobs
from attnpool_backbones.command_line import UserError
from attnpool_backbones.process_memory import KEPT_MEMORY

MACHINE = dict(device='cpu', processor='a processor', bfloat16_instructions=False)
JOB = against_plain(Case(model='CoAtNet:0'))
RESULTS = [
    dict(asdict(case), seconds=seconds, spread=0.1, rounds=3, fresh=0, macs=10, traffic=10,
         matrix_rate=1e9, copy_rate=1e9, job=JOB.name, quantity='time', key=JOB.key(),
         date=date)
    for case, seconds, date in zip(
        JOB.cases, (1.0, 2.5), ('2025-12-31', '2026-01-02'), strict=True
    )
]  # fmt: skip


def page_with(sections, file):
    """Writes a page with places for sections."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(''.join(f'<!-- {s} -->\nold\n<!-- /{s} -->\n' for s in sections))
    return file


def test_publish(tmp_path):
    page = page_with(['speed'], tmp_path / 'docs' / 'speed' / 'plain_form.md')
    publish(tmp_path / 'work', RESULTS, MACHINE, 'the command', tmp_path)
    text = page.read_text()
    assert '| CoAtNet:0 forward, plain / ours | at least 2.00x | 2.50x | yes |' in text
    assert '| CoAtNet:0 train, plain / ours | at least 1.80x | - | not measured |' in text
    assert 'a processor' in text and 'Measured by `the command`.' in text and 'old' not in text
    assert 'Times are medians of 3 rounds.' in text
    published = {file.name for file in (tmp_path / 'docs/speed').iterdir()}
    assert published == {'plain_form.md', 'report.md', 'results.csv', 'speed.png'}


def test_publish_what_a_process_that_kept_its_memory_measured(tmp_path):
    machine = MACHINE | KEPT_MEMORY
    publish(tmp_path / 'work', RESULTS, machine, 'the command', tmp_path)  # there is no page
    report = (tmp_path / 'docs/speed/kept_memory/report.md').read_text()
    assert 'free memory kept' in report and '2.50x' in report


@pytest.mark.parametrize(
    ('more', 'row', 'section'),
    [
        ({}, {}, 'default'),
        (KEPT_MEMORY, {}, 'kept'),
        (dict(preloaded='libother.so'), {}, 'preloaded'),
        ({}, dict(compiled=True), 'compiled'),
        (dict(threads=1), {}, 'one-thread'),
        ({}, dict(dtype='bfloat16'), 'bfloat16'),
    ],
)
def test_publish_peers_by_conditions(more, row, section, tmp_path):
    sections = ('default', 'kept', 'preloaded', 'one-thread', 'compiled', 'bfloat16')
    file = page_with(sections, tmp_path / 'docs' / 'speed' / 'peers.md')
    results = [RESULTS[0] | row, dict(RESULTS[1], form='timm', difference=1e-6) | row]
    publish(tmp_path / 'work', results, MACHINE | more, 'the command', tmp_path)
    before, after = file.read_text().split(f'<!-- {section} -->')
    assert 'timm NCHW 2.5 | 2.50 | **ours** | timm 1e-06 |' in after.split('<!-- /')[0]
    assert 'Measured by `the command` on 2025-12-31 to 2026-01-02.' in after
    assert 'timm' not in before


def test_publish_on_a_page_of_its_own(tmp_path):
    page = page_with(['speed', 'default'], tmp_path / 'another_processor.md')
    publish(tmp_path / 'work', RESULTS, MACHINE, 'the command', tmp_path, page)
    peers = [RESULTS[0], dict(RESULTS[1], form='timm', difference=1e-6)]
    publish(tmp_path / 'work', peers, MACHINE, 'the command', tmp_path, page)
    text = page.read_text()
    assert '2.50x' in text and 'timm NCHW 2.5' in text
    assert list(tmp_path.iterdir()) == [page]  # no report, no README


def test_publish_what_a_gpu_took(tmp_path):
    file = page_with(['gpu'], tmp_path / 'docs' / 'speed' / 'gpu.md')
    theirs = dict(RESULTS[1], form='timm', difference=1e-6)
    results = [
        dict(RESULTS[0], kernel_seconds=0.5, taken_bytes=10**9),
        dict(theirs, kernel_seconds=2.0, taken_bytes=3 * 10**9),
        dict(theirs, layout='channels_last', kernel_seconds=0.6, taken_bytes=10**9, seconds=9),
    ]
    publish(tmp_path, results, MACHINE, 'the command', tmp_path)
    text = file.read_text()
    assert '| 1000.0, 500.0, 1.00 | timm NCHW 2500.0, 2000.0, 3.00 | 2.50 | 1.20 | 3.00 |' in text
    assert 'the command' in text and 'old' not in text


def test_publish_whole_models(tmp_path):
    file = page_with(['end-to-end'], tmp_path / 'docs' / 'speed' / 'end_to_end.md')
    parts = dict(backbone=0.5, neck=0.2)
    results = [
        dict(row, model=model, form='ours', parts=parts, loading=0.04)
        for row, model in zip(RESULTS, ('a/resnet.py', 'a/ours.py'), strict=True)
    ]
    publish(tmp_path, results, MACHINE, 'the command', tmp_path)
    text = file.read_text()
    assert '| resnet | forward | 512x512 | 1 | 1.00 | 50 % | 20 % | 30 % | 0.04 |' in text
    assert '| ours | forward | 512x512 | 2.5 | 0.40 | 20 % | 8 % | 72 % | 0.04 |' in text
    assert 'the command' in text and 'old' not in text


def test_publish_cost_over_size(tmp_path):
    file = page_with(['sizes'], tmp_path / 'docs' / 'speed' / 'sizes.md')
    results = [
        dict(RESULTS[0], size=(side, side), seconds=side / 512, key=str(side))
        for side in (512, 1024, 2048)
    ]
    publish(tmp_path, results, MACHINE, 'the command', tmp_path)
    assert '| 1024 - 16384 | 1 s, 2 s, 4 s | 0.50 |' in file.read_text()


def test_publish_operators_with_their_memory(tmp_path):
    file = page_with(['operators'], tmp_path / 'docs' / 'speed' / 'operators.md')
    jobs = {job.name: job for job in suite_jobs('operators')}
    nms = jobs['mmcv.nms forward 6000x1']
    results = [
        dict(RESULTS[0], **asdict(case), seconds=seconds, job=nms.name, key=nms.key())
        for case, seconds in zip(nms.cases, (0.01, 0.012), strict=True)
    ]
    peak = next(job for job in jobs.values() if job.quantity == 'memory')
    given = memory_of(peak.cases[0])
    for used, cells in (
        (given, '2.00 | at most 2 | yes'),
        (2 * given, '3.00 | at most 2 | **no**'),
    ):
        memory = dict(asdict(peak.cases[0]), job=peak.name, quantity='memory', key=peak.key(),
                      idle_bytes=10, peak_bytes=10 + used, date='2026-01-01')  # fmt: skip
        publish(tmp_path, [*results, memory], MACHINE, 'the command', tmp_path)
        text = file.read_text()
        assert (
            '| nms | 6000x1 | 1 | forward | 10 | 12 | 1.20 | at least 1.5 | 10 % | **no** |' in text
        )
        assert f'| {cells} |' in text
    assert 'a processor' in text and 'Measured by `the command` on 2' in text and 'old' not in text


def test_nothing_to_publish(tmp_path):
    with pytest.raises(UserError, match='no result of the suite targets'):
        publish(tmp_path, [], MACHINE, 'the command', tmp_path)
