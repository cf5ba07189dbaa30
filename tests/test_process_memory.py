"""What the allocator is told; each test in a process of its own, for there is no way back."""

import subprocess
import sys

import pytest

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


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
@pytest.mark.parametrize('keep', [False, True])
def test_a_large_block_is_fresh_unless_memory_is_kept(keep):
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM.format(keep=keep)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) in (range(2) if keep else range(40, 50))
