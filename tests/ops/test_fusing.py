"""Which layers may be computed from their weights without being called."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import register_parametrization

from attnpool_backbones.ops.fusing import is_plain, may_fuse, plain


@pytest.mark.parametrize(
    'layer',
    [nn.Linear(2, 3), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(2), nn.LayerNorm(2), nn.Identity(), None],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_of_torch_may_be_fused(layer):
    assert is_plain(layer) and may_fuse(layer)


HOOKS = {
    'forward': lambda layer: layer.register_forward_hook(lambda *_: None),
    'forward pre': lambda layer: layer.register_forward_pre_hook(lambda *_: None),
    'backward': lambda layer: layer.register_full_backward_hook(lambda *_: None),
    'backward pre': lambda layer: layer.register_full_backward_pre_hook(lambda *_: None),
    'pruned': lambda layer: prune.l1_unstructured(layer, 'weight', amount=0.5),
}


@pytest.mark.parametrize('register', HOOKS.values(), ids=list(HOOKS))
def test_layers_with_hooks_are_called(register):
    layer = nn.Linear(2, 3)
    register(layer)
    assert is_plain(layer) and not may_fuse(layer)
    assert not may_fuse(nn.Linear(2, 3), layer)


def test_hooks_of_all_modules_are_called():
    layer = nn.Linear(2, 3)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert not may_fuse(layer)
    finally:
        handle.remove()
    assert may_fuse(layer)


class Subclass(nn.Linear):
    pass


def _patched():
    layer = nn.Linear(2, 3)
    layer.forward = lambda x: x
    return layer


def _parametrised():
    layer = nn.Linear(2, 3)
    register_parametrization(layer, 'weight', nn.Identity())
    return layer


OTHERS = {
    'subclass': lambda: Subclass(2, 3),
    'patched': _patched,
    'parametrised': _parametrised,
    'weight norm': lambda: parametrizations.weight_norm(nn.Linear(2, 3)),
    'container': lambda: nn.Sequential(nn.Linear(2, 3)),
    'lazy': lambda: nn.LazyLinear(3),
    'spectral norm': lambda: nn.utils.spectral_norm(Subclass(2, 3)),
}


@pytest.mark.parametrize('build', OTHERS.values(), ids=list(OTHERS))
def test_other_layers_are_called_and_not_folded(build):
    assert not is_plain(build()) and not may_fuse(build())


def test_a_layer_can_be_declared_plain():
    @plain
    class Own(nn.Linear):
        pass

    assert may_fuse(Own(2, 3))
    assert torch.compile(lambda x, layer: x + may_fuse(layer), fullgraph=True, backend='eager')(
        torch.zeros(1), Own(2, 3)
    ).equal(torch.ones(1))
