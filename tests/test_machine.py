"""What is told of the machine and of this process's memory."""

import numpy as np

from attnpool_backbones import machine


def test_peak_is_of_what_was_touched():
    before = machine.peak_memory()
    assert before >= machine.resident_memory() > 2**20
    block = np.ones(2**27 // 8)  # 128 MiB, all of it touched
    assert machine.peak_memory() >= machine.resident_memory() - 2**22
    assert machine.resident_memory() >= block.nbytes


def test_without_linux(monkeypatch):
    monkeypatch.setattr(machine, '_status', lambda field: None)
    assert machine.peak_memory() == machine.resident_memory() > 2**20


def test_processor():
    assert machine.processor_name()
