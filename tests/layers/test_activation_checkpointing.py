"""Checkpointing must not show in any number."""

import copy

import pytest
import torch
from torch import nn

from attnpool_backbones import ops
from attnpool_backbones.layers.activation_checkpointing import checkpoint_block


def trains_alike(function, model, plain):
    for step in range(3):
        x = torch.randn(2, 3, 8, 8)
        for run in (plain, function):
            torch.manual_seed(step)
            run(x).square().sum().backward()
    torch.testing.assert_close(model.state_dict(), plain.state_dict())
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize('momentum', [0.1, None])
@pytest.mark.parametrize('norm', [nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d])
def test_running_statistics_are_updated_once(norm, momentum):
    torch.manual_seed(0)
    norm = norm(4, momentum=momentum, affine=True, track_running_stats=True)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Dropout(0.5))
    checkpointed = copy.deepcopy(plain)
    trains_alike(lambda x: checkpoint_block(checkpointed, x), checkpointed, plain)


@pytest.mark.parametrize('backend', ['aot_eager', 'inductor'])
def test_compiled_blocks_are_trained_as_plain_ones(backend):
    torch.manual_seed(0)
    norm, act, drop = nn.BatchNorm2d(4), nn.GELU(), nn.Dropout(0.5)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), norm, act, drop, nn.Conv2d(4, 2, 3))
    # the compiler's own generator draws other numbers
    drop.train(backend == 'aot_eager')
    checkpointed = copy.deepcopy(plain)
    compiled = torch.compile(
        lambda x: checkpoint_block(checkpointed, x), fullgraph=True, backend=backend
    )
    trains_alike(compiled, checkpointed, plain)


def test_momentum_is_back_after_an_error():
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(norm, _FailsTheSecondTime())
    y = checkpoint_block(model, torch.randn(2, 3, 4, 4, requires_grad=True))
    with pytest.raises(ZeroDivisionError):
        y.sum().backward()
    assert norm.momentum == 0.1
    assert norm.num_batches_tracked == 1


class _FailsTheSecondTime(nn.Module):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * x if self.calls == 1 else 1 / 0


def test_the_second_pass_runs_the_forms_of_the_first():
    forms = []

    @ops.operator
    def squared(x):
        forms.append('formula')
        return x * x

    @squared.fast
    def _(x):
        forms.append('fast')
        return x * x

    class Block(nn.Module):
        def forward(self, x):
            return squared(x)

    with ops.formulas():
        y = checkpoint_block(Block(), torch.ones(3, requires_grad=True))
    y.sum().backward()
    assert forms == ['formula', 'formula']
