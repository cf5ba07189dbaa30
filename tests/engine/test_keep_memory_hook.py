"""Training that keeps the memory it has freed."""

import os
import subprocess
import sys
from argparse import Namespace

import pytest
from mmengine.config import Config

from attnpool_backbones.engine import KeepMemoryHook
from attnpool_backbones.engine import keep_memory_hook as module
from attnpool_backbones.launching.training_options import apply_training_options
from attnpool_backbones.process_memory import has_small_pages
from attnpool_backbones.registry import HOOKS

STEPS = """
import torch
from attnpool_backbones.engine import KeepMemoryHook
from attnpool_backbones.process_memory import fresh_bytes
def step():
    torch.ones(64 << 18)  # 64 MiB, which glibc maps anew
def cost():
    # glibc before 2.38 serves aligned blocks from freed ones only once these have grown together
    for _ in range(16):
        step()
    before = fresh_bytes()
    for _ in range(4):
        step()
    return fresh_bytes() - before
fresh = cost()
KeepMemoryHook().before_run(None)
print(fresh, cost())
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
@pytest.mark.skipif(not has_small_pages(), reason='page faults of huge pages')
def test_blocks_are_fresh_once():
    command = [sys.executable, '-c', STEPS]
    no_card = dict(os.environ, CUDA_VISIBLE_DEVICES='')  # with one the hook does nothing
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=no_card)
    fresh, kept = map(int, done.stdout.split())
    assert fresh > 200 << 20 and kept < 8 << 20


def test_other_c_libraries_are_told(monkeypatch):
    told = []
    monkeypatch.setattr(module, 'keep_free_memory', lambda: False)
    monkeypatch.setattr(module, 'print_log', lambda message, *_: told.append(message))
    monkeypatch.setattr(module.torch.cuda, 'is_available', lambda: False)
    KeepMemoryHook().before_run(None)
    assert len(told) == 1 and 'glibc' in told[0]


def test_not_with_cuda(monkeypatch):
    monkeypatch.setattr(module, 'keep_free_memory', lambda: pytest.fail('it was called'))
    monkeypatch.setattr(module.torch.cuda, 'is_available', lambda: True)
    KeepMemoryHook().before_run(None)


@pytest.mark.parametrize('said', [True, False])
def test_the_flag(said):
    cfg = Config(dict(custom_hooks=[dict(type='NumClassCheckHook')]))
    apply_training_options(cfg, Namespace(keep_memory=said))
    types = [hook['type'] for hook in cfg.custom_hooks]
    assert types == ['NumClassCheckHook', *['attnpool_backbones.KeepMemoryHook'] * said]
    assert not said or isinstance(HOOKS.build(cfg.custom_hooks[1]), KeepMemoryHook)
