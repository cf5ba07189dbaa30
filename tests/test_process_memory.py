"""What the allocator is told; each test in a process of its own, for there is no way back."""

import subprocess
import sys

import pytest

from attnpool_backbones import process_memory
from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.timing import _pages

PROGRAM = """
import torch
from attnpool_backbones import process_memory
if {keep}:
    assert process_memory.keep_free_memory()
fresh = []
for _ in range(20):
    had = process_memory.fresh_bytes()
    block = torch.ones(40 << 20, dtype=torch.uint8)
    fresh.append(process_memory.fresh_bytes() - had >> 20)
    del block
print(min(fresh))
"""


@pytest.mark.parametrize(
    ('enabled', 'small'),
    [
        ('[always] madvise never\n', False),
        ('always [madvise] never\n', True),
        ('always madvise [never]\n', True),
        (None, True),
    ],
)
def test_huge_pages(enabled, small, tmp_path, monkeypatch):
    file = tmp_path / 'enabled'
    monkeypatch.setattr(process_memory, '_HUGE_PAGES', file)
    if enabled:
        file.write_text(enabled)
    assert process_memory.has_small_pages() is small
    case = Case(model='CoAtNet:nano')
    assert _pages(case, [1, 2, 3]) == (2 if small else None)


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
@pytest.mark.skipif(not process_memory.has_small_pages(), reason='page faults of huge pages')
@pytest.mark.parametrize('keep', [False, True])
def test_a_large_block_is_fresh_unless_memory_is_kept(keep):
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM.format(keep=keep)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) in (range(2) if keep else range(40, 50))
