"""What is told of the machine and of this process's memory."""

import numpy as np
import pytest

from attnpool_backbones import machine


def test_peak_is_of_what_was_touched() -> None:
    before = machine.peak_memory()
    assert before >= machine.resident_memory() > 2**20
    block = np.ones(2**27 // 8)  # 128 MiB, all of it touched
    assert machine.peak_memory() >= machine.resident_memory() - 2**22
    assert machine.resident_memory() >= block.nbytes


def test_without_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, '_status', lambda field: None)
    assert machine.peak_memory() == machine.resident_memory() > 2**20


def test_processor() -> None:
    assert machine.processor_name()
