"""Re-attention whose BatchNorm takes the statistics of all processes."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from attnpool_backbones.layers.re_attention import HeadMixing, ReAttention
from attnpool_backbones.ops import re_attention as ops
from attnpool_backbones.ops.attention import attention_maps
from attnpool_backbones.ops.re_attention import Mixing, re_attention
from attnpool_backbones.process_lifetime import end_now

HEADS = 3
SCALE, PRETRAIN_TOKENS = 0.4, 6


def drawn(norm_type, tokens, process):
    """Returns queries, keys and values of a process, and layers that are the same in all."""
    torch.manual_seed(0)
    theta, norm = nn.Linear(HEADS, HEADS).double(), norm_type(HEADS).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    torch.manual_seed(1 + process)
    shape = 3, 2 - process, HEADS, tokens[process], 4
    return [(2 * t).requires_grad_() for t in torch.randn(shape).double()], theta, norm


def ratio(q, rescales):
    return q.shape[2] / PRETRAIN_TOKENS if rescales else 1.0


def results(outputs, tensors, theta, norm):
    """Returns outputs, gradients of tensors and layers, and the running statistics."""
    loss = sum((y * torch.linspace(-1, 2, y.numel()).view_as(y)).square().sum() for y in outputs)
    parameters = *theta.parameters(), *norm.parameters()
    gradients = torch.autograd.grad(loss, [*tensors, *parameters])
    found = [g.detach() for g in (*outputs, *gradients)]
    return found[: -len(parameters)], found[-len(parameters) :], dict(norm.named_buffers())


def run_process(process, folder, tokens, rescales):
    store = distributed.FileStore(f'{folder}/store', 2)
    limit = timedelta(seconds=60)
    distributed.init_process_group('gloo', store=store, rank=process, world_size=2, timeout=limit)
    qkv, theta, norm = drawn(nn.SyncBatchNorm, tokens, process)
    mixing = Mixing(theta, norm, SCALE, ratio(qkv[0], rescales))
    out, _ = re_attention(*qkv, mixing)
    torch.save(results([out], qkv, theta, norm), f'{folder}/{process}.pt')
    distributed.barrier()
    end_now(0)  # threads of gloo may abort a process that takes itself apart


def of_one_process(tokens, rescales):
    """Computes what both processes should, by a plain BatchNorm over all entries of the maps."""
    parts = [drawn(nn.BatchNorm2d, tokens, process)[0] for process in range(2)]
    _, theta, norm = drawn(nn.BatchNorm2d, tokens, 0)
    mixed = [
        theta((attention_maps(q, k) * ratio(q, rescales)).movedim(1, -1)) for q, k, _ in parts
    ]  # B, N, N, H
    entries = torch.cat([y.reshape(-1, HEADS) for y in mixed])
    entries = norm(entries[..., None, None])[..., 0, 0]
    outputs = [
        (y.view_as(m).movedim(-1, 1) * (SCALE / ratio(q, rescales))) @ v
        for y, m, (q, _, v) in zip(
            entries.split([m[..., 0].numel() for m in mixed]), mixed, parts, strict=True
        )
    ]
    return results(outputs, [t for part in parts for t in part], theta, norm)


@pytest.mark.parametrize('tokens', [(5, 5), (5, 7)], ids=str)
@pytest.mark.parametrize('rescales', [False, True], ids=['fixed', 'rescale'])
def test_two_processes_have_the_statistics_of_both(tmp_path, repo_root, tokens, rescales):
    code = 'from tests.ops.test_synchronised import run_process; run_process'
    runs = [
        subprocess.Popen(
            [sys.executable, '-c', f'{code}({i}, {str(tmp_path)!r}, {tokens}, {rescales})'],
            env=dict(os.environ, PYTHONPATH=str(repo_root), OMP_NUM_THREADS='1'),
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for run in runs:
        error = run.communicate(timeout=120)[1]
        assert run.returncode == 0, error[-3000:]
    of_data, of_layers, statistics = zip(
        *(torch.load(Path(tmp_path, f'{i}.pt')) for i in range(2)), strict=True
    )
    expected = of_one_process(tokens, rescales)
    first, second = of_data
    outputs, gradients = [first[0], second[0]], [*first[1:], *second[1:]]
    torch.testing.assert_close([*outputs, *gradients], expected[0])
    summed = [a + b for a, b in zip(*of_layers, strict=True)]
    torch.testing.assert_close(summed, expected[1])
    for found in statistics:
        torch.testing.assert_close(found, expected[2])


def test_windows_do_not_wait_for_other_processes(monkeypatch):
    # these may have another number of them
    asked = []
    monkeypatch.setattr(ops, 'synchronised_group', lambda norm: asked.append(norm))
    tokens = torch.rand(1, 1 + 5 * 4, 8)
    for window, times in ((3, 0), (None, 1)):
        layer = ReAttention(8, 2, HeadMixing(2, 5), window=window)
        layer.mixing.norm = nn.SyncBatchNorm(2)
        asked.clear()
        layer(tokens, grid=(5, 4))
        assert len(asked) == times
