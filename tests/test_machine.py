"""What is told of the machine and of this process's memory."""

import os
import platform

import numpy as np
import pytest

from attnpool_backbones import machine


def test_peak_is_of_what_was_touched():
    before = machine.peak_memory()
    # Linux counts in several places, and adds up late
    assert before + 2**22 >= machine.resident_memory() > 2**20
    block = np.ones(2**27 // 8)  # 128 MiB, all of it touched
    assert machine.peak_memory() >= machine.resident_memory() - 2**22
    assert machine.resident_memory() >= block.nbytes


def test_without_linux(monkeypatch):
    monkeypatch.setattr(machine, '_status', lambda field: None)
    assert machine.peak_memory() == machine.resident_memory() > 2**20


X86 = 'processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n'
ARM = 'processor\t: 0\nBogoMIPS\t: 50.00\nCPU part\t: 0xd0c\n'


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (f'{X86}\n{X86}', 'AMD EPYC (family 25, model 17)'),
        (ARM, platform.machine()),
        (None, platform.processor() or platform.machine()),
    ],
    ids=['x86', 'ARM', 'not Linux'],
)
def test_processor(text, expected, monkeypatch):
    def read_text(path):
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(machine.Path, 'read_text', read_text)
    assert machine.processor_name() == expected


def test_this_processor():
    assert machine.processor_name()


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {3, 5}, raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 64)
    assert machine.usable_cores() == 2


@pytest.mark.parametrize('count, expected', [(6, 6), (None, 1)])
def test_cores_where_the_system_does_not_tell(count, expected, monkeypatch):
    monkeypatch.delattr(os, 'sched_getaffinity', raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: count)
    assert machine.usable_cores() == expected


MIB = 2**20
FREE = 'MemTotal:  1024000 kB\nMemAvailable:  819200 kB\n'  # 800 MiB
TWO = '0::/job/step\n'
ONE = '12:cpu,cpuacct:/other\n4:memory:/docker/abc\n0::/\n'


def group(limit, used, version=2, cached=0):
    names = ('memory.max', 'memory.current') if version == 2 else (
        'memory.limit_in_bytes', 'memory.usage_in_bytes')  # fmt: skip
    total = '' if version == 2 else 'total_'
    stat = f'{total}active_file {cached}\n{total}inactive_file {cached}\nanon 7\n'
    return dict(zip(names, (f'{limit}\n', f'{used}\n'), strict=True)) | {'memory.stat': stat}


@pytest.mark.parametrize(
    ('own', 'groups', 'expected'),
    [
        ('', {}, 800),
        ('', {'': group(500 * MIB, 100 * MIB)}, 800),  # there are no groups
        (TWO, {}, 800),
        (TWO, {'job/step': group(500 * MIB, 100 * MIB)}, 400),
        (TWO, {'job': group(300 * MIB, 100 * MIB), 'job/step': group('max', 5)}, 200),
        (TWO, {'': group(300 * MIB, 100 * MIB)}, 200),  # a container's own root
        (TWO, {'job/step': group(500 * MIB, 500 * MIB, cached=20 * MIB)}, 40),
        (TWO, {'job/step': group(500 * MIB, 501 * MIB)}, 0),
        (TWO, {'job/step': group(2**60, 0)}, 800),
        (ONE, {'memory/docker/abc': group(500 * MIB, 100 * MIB, 1)}, 400),
        (ONE, {'memory': group(500 * MIB, 500 * MIB, 1, cached=10 * MIB)}, 20),
        (ONE, {'memory': group(2**63 - 4096, 100, 1)}, 800),
        (TWO, {'job/step': {'memory.max': 'x', 'memory.current': '5'}}, 800),
    ],
)
def test_memory_is_that_of_the_container(own, groups, expected, tmp_path, monkeypatch):
    files = {'proc/meminfo': FREE, 'proc/self/cgroup': own}
    for folder, texts in groups.items():
        files |= {f'sys/fs/cgroup/{folder}/{name}': text for name, text in texts.items()}
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr(machine, 'SYSTEM', tmp_path)
    assert machine.available_memory() == expected * MIB


def test_memory_without_linux(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, 'SYSTEM', tmp_path)
    whole = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    assert 0 < machine.available_memory() < whole
