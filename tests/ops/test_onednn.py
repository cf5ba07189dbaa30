"""Layers that oneDNN computes with their activation give what the formulas give."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from attnpool_backbones.layers.activations import GELU, ReLU, SiLU
from attnpool_backbones.layers.depthwise_conv import DepthwiseConv2d
from attnpool_backbones.layers.star_relu import StarReLU
from attnpool_backbones.ops import onednn as onednn_module
from attnpool_backbones.ops.conv_norm import conv_norm
from attnpool_backbones.ops.mlp import mlp
from attnpool_backbones.ops.onednn import casts_weights, compiled_linear, may_call_onednn
from attnpool_backbones.ops.product import choose_convolution, product

ACTIVATIONS = [GELU, ReLU, SiLU, nn.GELU, lambda: nn.GELU('tanh')]
compilers_are_told = pytest.mark.skipif(
    not hasattr(torch.compiler, 'is_exporting'),
    reason='PyTorch before 2.7 tells no compiler from an export, so graphs have its own layers',
)
BFLOAT16 = pytest.param(
    torch.bfloat16,
    marks=pytest.mark.skipif(
        not torch.backends.mkldnn.is_available()
        or not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        reason='this processor has no bfloat16 instructions',
    ),
)
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
KERNELS = ('_linear_pointwise', '_convolution_pointwise')


@pytest.fixture(autouse=True)
def onednn():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    choose_convolution(True)
    casts_weights()  # tried before calls are noted
    torch.manual_seed(0)
    yield
    choose_convolution(None)
    torch.set_num_threads(threads)


@pytest.fixture
def called(monkeypatch):
    """Notes which of oneDNN's kernels are called."""
    names = []
    for name in KERNELS:
        kernel = getattr(torch.ops.mkldnn, name)
        monkeypatch.setattr(
            torch.ops.mkldnn, name, lambda *a, k=kernel, n=name: names.append(n) or k(*a)
        )
    return names


def close(y, expected, dtype):
    assert y.dtype == expected.dtype and y.shape == expected.shape
    bound = TOLERANCES[dtype] * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(y, expected, rtol=0, atol=bound)


def layers(act):
    return nn.Linear(64, 128), act(), nn.Linear(128, 64)


@torch.no_grad()
@pytest.mark.parametrize('act', ACTIVATIONS)
@pytest.mark.parametrize('dtype', [torch.float32, BFLOAT16])
@pytest.mark.parametrize('scale', [None, torch.linspace(0.5, 2, 64)])
def test_mlp(called, act, dtype, scale):
    args = [layer.to(dtype) for layer in layers(act)]
    scale = None if scale is None else scale.to(dtype)
    x = torch.randn(2, 20, 30, 64).to(dtype)
    for tokens in (x, x.transpose(1, 2)):
        y = mlp(tokens, *args, scale)
        close(y, mlp.formula(tokens, *args, scale), dtype)
    assert '_linear_pointwise' in called


@torch.no_grad()
@pytest.mark.parametrize('bias', [True, False])
def test_product(called, bias):
    layer = nn.Linear(64, 96, bias=bias)
    x = torch.randn(3, 500, 64)
    close(product(x, layer.weight, layer.bias), layer(x), torch.float32)
    assert called == ['_linear_pointwise']


@torch.no_grad()
@pytest.mark.parametrize('act', ACTIVATIONS)
@pytest.mark.parametrize('dtype', [torch.float32, BFLOAT16])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    'conv',
    [
        lambda: nn.Conv2d(32, 48, 1, bias=False),
        lambda: nn.Conv2d(32, 32, 3, padding=1, groups=32),
        lambda: nn.Conv2d(32, 16, 3, stride=2, padding=1),
        lambda: nn.Conv2d(32, 16, 3, dilation=2),
    ],
)
def test_convolution(called, conv, memory_format, dtype, act):
    conv, act = conv().to(dtype), act()
    norm = nn.BatchNorm2d(conv.out_channels).eval().to(dtype)
    x = torch.randn(2, 32, 20, 30).to(dtype, memory_format=memory_format)
    for last in (None, norm):
        expected = conv_norm.formula(x, conv, last, act=act)
        close(conv_norm(x, conv, last, act=act), expected, dtype)
    assert called == ['_convolution_pointwise'] * 2


@torch.no_grad()
@pytest.mark.parametrize('dtype', [BFLOAT16])
def test_autocast(called, dtype):
    fc1, act, fc2 = layers(GELU)
    conv = nn.Conv2d(32, 48, 1)
    x, pixels = torch.randn(2, 600, 64), torch.randn(2, 32, 20, 30)
    with torch.autocast('cpu', dtype):
        close(mlp(x, fc1, act, fc2), mlp.formula(x, fc1, act, fc2), dtype)
        close(conv_norm(pixels, conv, act=act), conv_norm.formula(pixels, conv, act=act), dtype)
    assert set(called) == set(KERNELS)


@torch.no_grad()
@pytest.mark.parametrize('dtype', [BFLOAT16])
@pytest.mark.parametrize('takes', [True, False])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    'conv',
    [
        lambda: nn.Conv2d(32, 48, 1),
        lambda: nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False),
        lambda: nn.Conv2d(32, 16, 3, stride=2, dilation=2),
    ],
)
def test_autocast_rounds_no_biases(called, conv, memory_format, takes, dtype, monkeypatch):
    monkeypatch.setattr(onednn_module, 'casts_weights', lambda: takes)
    conv, fc = conv(), nn.Linear(64, 96)
    x = torch.randn(2, 32, 20, 30).to(dtype, memory_format=memory_format)
    tokens = torch.randn(3, 500, 64).to(dtype)
    exact = copy.deepcopy(conv).double()(x.double()), copy.deepcopy(fc).double()(tokens.double())
    for _ in range(2):  # weights change between passes
        with torch.autocast('cpu', dtype):
            formulas = conv(x), fc(tokens)
            computed = conv_norm(x, conv), product(tokens, fc.weight, fc.bias)
        for y, formula, right in zip(computed, formulas, exact, strict=True):
            assert y.dtype == dtype and y.stride() == formula.stride()
            error, allowed = ((t - right).norm() for t in (y, formula))
            assert error <= 1.01 * allowed
        for parameter in (*conv.parameters(), *fc.parameters()):
            parameter.data.mul_(-1)  # as an average of weights does, seen by no version counter
        exact = [-t for t in exact]
    assert called == [*KERNELS[::-1]] * 2 * takes


@pytest.mark.parametrize('dtype', [BFLOAT16])
def test_what_takes_float32_weights_is_tried_once(dtype, monkeypatch):
    def refuse(*args):
        raise RuntimeError('could not create a primitive')

    for default in (torch.float64, torch.float32):
        torch.set_default_dtype(default)
        casts_weights.cache_clear()
        assert casts_weights()
    casts_weights.cache_clear()
    monkeypatch.setattr(torch.ops.mkldnn, '_convolution_pointwise', refuse)
    assert not casts_weights() and not casts_weights()
    casts_weights.cache_clear()


def operators_of_graph(function, *args):
    """Returns the result and the names of the operators that a compiler sees."""
    names = []

    def backend(graph, inputs):
        names.extend(str(node.target) for node in graph.graph.nodes if node.op == 'call_function')
        return graph

    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend=backend)(*args), ' '.join(names)


@compilers_are_told
@pytest.mark.parametrize('trains', [False, True])
@pytest.mark.parametrize('act', [*ACTIVATIONS, StarReLU])
def test_compilers_see_all_that_they_can_fuse(act, trains):
    fc1, act, fc2 = layers(act)
    for parameter in act.parameters():
        torch.nn.init.constant_(parameter, 0.7)
    scale, x = torch.linspace(0.5, 2, 64), torch.randn(2, 20, 30, 64)
    with torch.set_grad_enabled(trains):
        y, names = operators_of_graph(lambda x: mlp(x, fc1, act, fc2, scale), x)
        close(y, mlp.formula(x, fc1, act, fc2, scale), torch.float32)
    # the factor is left to the compiler, the activation where oneDNN does not compute it
    alone = [name for name in ('gelu', 'relu', 'silu') if name in names]
    assert bool(alone) == (trains or isinstance(act, StarReLU)) and 'mul' in names
    assert names.count('convolution_pointwise') == (0 if trains else 2)
    assert names.count('conv2d') == (2 if trains else 0)


@pytest.mark.parametrize('shape', [(1200, 64), (2, 600, 64), (2, 20, 30, 64), (2, 2, 10, 30, 64)])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('dynamic', [True, False])
def test_gradients_of_a_compiled_linear_layer(bias, shape, dynamic):
    layer = nn.Linear(64, 96, bias=bias)
    x = torch.randn(shape, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(product, fullgraph=True, backend='aot_eager', dynamic=dynamic)
    weight = torch.linspace(-1, 1, 1200 * 96)
    for tokens in (x, x.transpose(0, -2)):
        args = [tokens, *layer.parameters()]
        grads = (
            torch.autograd.grad((y * weight.view_as(y)).sum(), [x, *layer.parameters()])
            for y in (compiled(*args), nn.functional.linear(*args))
        )
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_an_activation_in_a_linear_layer_has_no_gradients():
    layer = nn.Linear(64, 96)
    with pytest.raises(ValueError, match="activation 'gelu' has no gradients"):
        compiled_linear(torch.randn(400, 64), layer.weight, layer.bias, 'gelu', 'none')


@compilers_are_told
@torch.no_grad()
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('act', ACTIVATIONS)
def test_compiled_convolutions_have_their_activation(act, memory_format):
    conv, norm, act = nn.Conv2d(32, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16).eval(), act()
    x = torch.randn(2, 32, 20, 30).to(memory_format=memory_format)
    y, names = operators_of_graph(lambda x: conv_norm(x, conv, norm, act=act), x)
    expected = conv_norm.formula(x, conv, norm, act=act)
    close(y, expected, torch.float32)
    assert names.count('onednn_conv') == 1
    assert not [name for name in ('gelu', 'relu', 'silu') if name in names]


@compilers_are_told
@pytest.mark.parametrize('trains', [False, True])
def test_compilers_see_norms_that_they_can_fuse(trains):
    conv, norm = nn.Conv2d(32, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16).eval()
    nn.init.uniform_(norm.weight)
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 32, 20, 30)
    with torch.set_grad_enabled(trains):
        y, names = operators_of_graph(lambda x: nn.functional.relu(conv_norm(x, conv, norm)), x)
        close(y, nn.functional.relu(conv_norm.formula(x, conv, norm)), torch.float32)
    assert 'batch_norm' in names and 'rsqrt' not in names  # the weight is not scaled


@pytest.mark.slow  # most of it is the C++ compiler's
@compilers_are_told
@pytest.mark.parametrize('trains', [False, True])
@pytest.mark.parametrize('act', [GELU, StarReLU])
def test_compiled_layers_of_maps_and_tokens(act, trains):
    """With the compiler's own code: layouts that it expects of oneDNN, in graphs of any size."""
    fc1, act, fc2 = layers(act)
    mixer = DepthwiseConv2d(64, 7)
    parameters = [*nn.ModuleList([fc1, act, fc2, mixer]).parameters()]

    def compute(x):  # B, 64, H, W
        y = mlp(mixer(x).permute(0, 2, 3, 1), fc1, act, fc2)
        return mlp(y.flatten(1, 2), fc1, act, fc2)

    torch._dynamo.reset()
    compiled = torch.compile(compute, fullgraph=True)
    for size in [(1, 64, 32, 24), (1, 64, 20, 36), (2, 64, 24, 24)]:
        x = torch.randn(size).to(memory_format=torch.channels_last)
        with torch.set_grad_enabled(trains):
            results = [compiled(x), compute(x)]
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
        if trains:
            gradients = [torch.autograd.grad(y.square().sum(), parameters) for y in results]
            torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-2)


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_not_where_somebody_watches(called):
    fc1, act, fc2 = layers(GELU)
    x = torch.randn(1200, 64)
    mlp(x, fc1, act, fc2).sum().backward()  # gradients
    with torch.no_grad():
        with Watching():  # operations are counted
            mlp(x, fc1, act, fc2)
        mlp(x.double(), *(layer.double() for layer in layers(GELU)))
    model = nn.Sequential(fc1, act, fc2).requires_grad_(False)
    torch.jit.trace(lambda x: mlp(x, *model), x, check_trace=False)
    assert not called


def test_hooks_of_activations_are_called(called):
    fc1, act, fc2 = layers(GELU)
    seen = []
    act.register_forward_hook(lambda *args: seen.append(args))
    with torch.no_grad():
        mlp(torch.randn(1200, 64), fc1, act, fc2)
        conv_norm(torch.randn(1, 32, 30, 30), nn.Conv2d(32, 8, 1), act=act)
    assert len(seen) == 2 and '_convolution_pointwise' not in called


def test_padding_other_than_zeros_is_left_to_torch(called):
    conv = nn.Conv2d(8, 8, 3, padding=1, padding_mode='reflect')
    x = torch.randn(1, 8, 20, 20)
    with torch.no_grad():
        close(conv_norm(x, conv, act=GELU()), GELU()(conv(x)), torch.float32)
    assert not called


@torch.no_grad()
def test_types_that_oneDNN_is_not_asked_for():
    x = torch.randn(4, 4)
    assert may_call_onednn(x, x, None) == torch.backends.mkldnn.is_available()
    assert not may_call_onednn(x, x.double())
    assert not may_call_onednn(x.half(), x.half())
    assert not may_call_onednn(x.to('meta'), x.to('meta'))
