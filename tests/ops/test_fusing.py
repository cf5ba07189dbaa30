"""Which layers may be computed from their weights without being called."""

import pytest
import torch
from mmcv.cnn.bricks import DropPath
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import register_parametrization
from torch.utils._python_dispatch import TorchDispatchMode

from attnpool_backbones.layers.star_relu import StarReLU
from attnpool_backbones.ops import formulas
from attnpool_backbones.ops.conv_norm import conv_norm, conv_residual
from attnpool_backbones.ops.fusing import is_plain, may_fuse, plain
from attnpool_backbones.ops.global_context import global_context
from attnpool_backbones.ops.linear import linear
from attnpool_backbones.ops.mlp import mlp
from attnpool_backbones.ops.re_attention import Mixing, re_attention
from attnpool_backbones.ops.residual import residual
from attnpool_backbones.ops.token_attention import token_attention
from tests.ops.rows import Draw
from tests.ops.table import ROWS
from tests.wrapping import Wrapper


@pytest.mark.parametrize(
    'layer',
    [nn.Linear(2, 3), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(2), nn.LayerNorm(2), DropPath(), None],
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
    'identity': nn.Identity,
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


WRAPPED = nn.Linear, nn.Conv2d, nn.LayerNorm, nn.BatchNorm2d, StarReLU
OF_LAYERS = [conv_norm, conv_residual, global_context, linear, mlp, token_attention]


@pytest.mark.parametrize('row', [r for r in ROWS if r.operator in OF_LAYERS], ids=lambda r: r.id)
def test_wrapped_layers_need_no_attributes(row):
    for seed in range(4):
        args = row.example(Draw(seed))
        wrapped = [Wrapper(a) if isinstance(a, WRAPPED) else a for a in args]
        with formulas():
            expected = call(row, args)
        torch.testing.assert_close(call(row, wrapped), expected)


def call(row, args):
    torch.manual_seed(3)
    return row.operator(*args)


NOTHING = nn.Identity()
"""What users put in the place of a layer that they do without."""
MAP, TOKENS = torch.rand(2, 4, 5, 3), torch.rand(2, 5, 4)
ATTENDS = torch.rand(1, 2, 4), MAP
STAND_INS = {
    'linear': (linear, TOKENS, NOTHING),
    'linear with scale': (linear, TOKENS, NOTHING, torch.rand(4)),
    'mlp fc1': (mlp, TOKENS, NOTHING, nn.GELU(), nn.Linear(4, 4)),
    'mlp act': (mlp, TOKENS, nn.Linear(4, 4), NOTHING, nn.Linear(4, 4)),
    'mlp fc2': (mlp, TOKENS, nn.Linear(4, 4), StarReLU(), NOTHING),
    'conv': (conv_norm, MAP, NOTHING, nn.BatchNorm2d(4).eval()),
    'norm': (conv_norm, MAP, nn.Conv2d(4, 3, 1), NOTHING, None, None, nn.ReLU()),
    'norm before': (conv_norm, MAP, nn.Conv2d(4, 3, 1), None, NOTHING),
    'conv of a residual': (conv_residual, MAP, MAP, NOTHING, DropPath(0.0), torch.rand(4)),
    'drop path of a conv': (conv_residual, MAP, MAP, nn.Conv2d(4, 4, 1), NOTHING, torch.rand(4)),
    'drop path': (residual, MAP, MAP, NOTHING, torch.rand(4)),
    'mask': (global_context, MAP[:, :1], NOTHING),
    'token norm': (token_attention, *ATTENDS, NOTHING, *(nn.Linear(4, 4) for _ in range(3))),
    'keys': (token_attention, *ATTENDS, nn.LayerNorm(4), nn.Linear(4, 4), NOTHING, NOTHING),
}


@pytest.mark.parametrize('given', STAND_INS.values(), ids=list(STAND_INS))
@pytest.mark.parametrize('training', [False, True], ids=['inference', 'training'])
def test_identities_stand_in_for_layers(given, training):
    function, x, *rest = given
    x = x.clone().requires_grad_(training)
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(function(x, *rest), function.formula(x, *rest))


@pytest.mark.parametrize('place', ['theta', 'norm'])
def test_identities_stand_in_for_the_mixing_of_heads(place):
    layers = dict(theta=nn.Linear(4, 4), norm=nn.BatchNorm2d(4).eval()) | {place: NOTHING}
    args = *torch.rand(3, 2, 4, 5, 8), Mixing(**layers, scale=1.0, t=1.0)
    torch.testing.assert_close(re_attention(*args)[0], re_attention.formula(*args)[0])


@pytest.mark.parametrize('watched', [False, True])
@torch.no_grad()
def test_folded_norms_do_not_part_activations(watched, monkeypatch):
    norm, called = nn.Identity(), []
    monkeypatch.setattr(nn.ReLU, 'forward', lambda act, x: called.append(act) or x.relu())
    if watched:
        norm.register_forward_hook(lambda *_: called.append(norm))
    args = MAP, nn.Conv2d(4, 8, 1), norm, None, None, nn.ReLU()
    torch.testing.assert_close(conv_norm(*args), conv_norm.formula(*args[:2]).relu())
    assert called == ([norm, args[-1]] if watched else [])


class Multiplied(TorchDispatchMode):
    """Notes the sizes of what factors and norms act on."""

    def __init__(self):
        super().__init__()
        self.sizes = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ('mul', 'addcmul') or 'batch_norm' in name:
            self.sizes.update(t.numel() for t in args if isinstance(t, torch.Tensor))
        return function(*args, **(kwargs or {}))


def _conv_norm(side):
    norm = nn.BatchNorm2d(8).eval()
    norm.running_var.fill_(2)
    return conv_norm, (torch.randn(1, 4, side, side), nn.Conv2d(4, 8, 3, padding=1), norm)


def _conv_residual(side):
    x, y = torch.randn(2, 1, 8, side, side)
    return conv_residual, (x, y, nn.Conv2d(8, 8, 3, padding=1), DropPath(0.0), torch.randn(8))


def _linear(side):
    return linear, (torch.randn(1, side, side, 30), nn.Linear(30, 8), torch.randn(8))


def _mlp(side):
    layers = nn.Linear(8, 40), StarReLU(), nn.Linear(40, 24)
    return mlp, (torch.randn(1, side, side, 8), *layers)


@pytest.mark.parametrize('build', [_conv_norm, _conv_residual, _linear, _mlp])
@pytest.mark.parametrize('side', [3, 12], ids=['more weights', 'a larger map'])
def test_factors_go_where_there_is_less_in_training(build, side):
    torch.manual_seed(0)
    function, args = build(side)
    layer = next(a for a in reversed(args) if isinstance(a, (nn.Conv2d, nn.Linear)))
    with Multiplied() as multiplied:
        y = function(*args)
    torch.testing.assert_close(y, function.formula(*args), rtol=1e-5, atol=1e-5)
    assert (layer.weight.numel() in multiplied.sizes) == (side == 12)
    gradients = torch.autograd.grad(y.square().sum(), layer.weight)
    expected = torch.autograd.grad(function.formula(*args).square().sum(), layer.weight)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('build', [_conv_norm, _conv_residual])
@pytest.mark.parametrize('mode', ['reflect', 'replicate', 'circular'])
def test_folded_convolutions_keep_their_padding(build, mode):
    torch.manual_seed(0)
    function, args = build(12)
    conv = next(a for a in args if isinstance(a, nn.Conv2d))
    conv.padding_mode = mode
    with Multiplied() as multiplied:
        y = function(*args)
    assert conv.weight.numel() in multiplied.sizes
    torch.testing.assert_close(y, function.formula(*args), rtol=1e-5, atol=1e-5)


class OwnWeight(torch.Tensor):
    """A weight that only a layer's own function takes, as those of torchao."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        taken = '__get__', 'linear', 'conv2d', 'detach', 'requires_grad_'
        if function.__name__ not in taken:
            raise TypeError(f'{function.__name__} is not for this weight')
        with torch._C.DisableTorchFunctionSubclass():
            y = function(*args, **(kwargs or {}))
        return y.as_subclass(cls) if function.__name__ == 'detach' else y


@pytest.mark.parametrize('build', [_conv_norm, _conv_residual, _linear, _mlp])
@torch.no_grad()
def test_weights_of_other_types_go_to_their_layer(build):
    torch.manual_seed(0)
    function, args = build(12)
    expected = function.formula(*args)
    for layer in args:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.weight = nn.Parameter(layer.weight.detach().as_subclass(OwnWeight))
            assert type(layer.weight) is OwnWeight and not may_fuse(layer)
    torch.testing.assert_close(function(*args), expected, rtol=1e-5, atol=1e-5)


def test_exporting_and_faking_leave_layers_plain():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            assert may_fuse(self.layer)
            return self.layer(x)

    for strict in (False, True):
        torch.export.export(Asks(), (torch.zeros(1, 2),), strict=strict)
    with FakeTensorMode():
        assert may_fuse(nn.Linear(2, 2))
