"""Mixed precision on the CPU: bfloat16 inside, float32 where operators have nothing else."""

import pytest
import torch
from torch import nn

from attnpool_backbones.engine import CPUAmpOptimWrapper
from attnpool_backbones.ops.fusing import may_fuse
from attnpool_backbones.registry import MODELS
from tests.backbones.families import FAMILIES
from tests.engine.tiny_run import make_config, make_runner


class Operator(nn.Module):
    """Says that it is one of mmcv's."""

    __module__ = 'mmcv.ops.roi_align'

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float32
        return x


def make_wrapper(model: nn.Module) -> CPUAmpOptimWrapper:
    return CPUAmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))


def test_layers_run_in_bfloat16_and_operators_in_float32():
    model = nn.Sequential(nn.Linear(3, 4), Operator(), nn.Linear(4, 2))
    wrapper = make_wrapper(model)
    with wrapper.optim_context(model):
        output = model(torch.ones(1, 3))
    assert output.dtype == torch.bfloat16
    wrapper.update_params(output.float().sum())
    assert all(
        p.dtype == torch.float32 and p.grad is None or p.grad.dtype == torch.float32
        for p in model.parameters()
    )


@pytest.mark.parametrize('family', FAMILIES)
def test_checkpointed_blocks_are_trained_as_plain_ones(family):
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = MODELS.build(dict(FAMILIES[family].config, with_cp=with_cp)).train()
        wrapper = make_wrapper(model)
        with wrapper.optim_context(model):
            loss = sum(y.float().square().mean() for y in model(torch.randn(2, 3, 64, 64)))
        wrapper.backward(loss)  # outside of the context, as in mmengine's own train_step
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(*gradients)


def test_operators_are_watched_and_other_layers_may_be_fused():
    layer, operator = nn.Linear(3, 4), Operator()
    model = nn.Sequential(layer, operator)
    with make_wrapper(model).optim_context(model):
        assert may_fuse(layer) and operator._forward_hooks and not may_fuse(operator)


def test_nothing_is_left_behind():
    model = nn.Sequential(nn.Linear(3, 4), Operator())
    with make_wrapper(model).optim_context(model):
        pass
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert model(torch.ones(1, 3)).dtype == torch.float32


def test_training_by_config(tmp_path):
    cfg = make_config(tmp_path)
    cfg.optim_wrapper.type = 'attnpool_backbones.CPUAmpOptimWrapper'
    make_runner('amp', cfg).train()
    assert (tmp_path / 'epoch_4.pth').exists()
