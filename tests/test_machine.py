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
