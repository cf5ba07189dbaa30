"""Products of tokens and weights: both libraries give the same, and one of them is chosen."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from attnpool_backbones.ops import choice
from attnpool_backbones.ops import product as module
from attnpool_backbones.ops.conv_norm import conv_norm
from attnpool_backbones.ops.onednn import WIDER
from attnpool_backbones.ops.product import (
    choose_convolution,
    is_convolution_chosen,
    onednn_lead,
    outruns_fused_attention,
    product,
)

SHAPES = [(1200, 64), (2, 700, 64), (1, 33, 29, 96)]


class Operations(TorchDispatchMode):
    """Notes which operations run, and the dilations of convolutions."""

    def __init__(self):
        super().__init__()
        self.names, self.dilations = set(), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.names.add(name)
        if name.startswith('convolution'):
            self.dilations.append(args[5 + name.endswith('backward')])
        return function(*args, **(kwargs or {}))


@pytest.fixture(params=[True, False], ids=['convolution', 'product'])
def convolves(request, threads):
    choose_convolution(request.param)
    yield request.param
    choose_convolution(None)


@pytest.fixture(params=[2, 1], ids=['two threads', 'one thread'])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def inputs(shape, outputs=48, bias=True):
    generator = torch.Generator().manual_seed(0)
    sizes = [shape, (outputs, shape[-1]), *([(outputs,)] if bias else [])]
    return [torch.randn(size, generator=generator, requires_grad=True) for size in sizes]


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_values_and_gradients_are_those_of_a_linear_layer(convolves, shape, bias):
    args = inputs(shape, bias=bias)
    y, expected = product(*args), F.linear(*args)
    torch.testing.assert_close(y, expected)
    weight = torch.linspace(-1, 1, y.numel()).view_as(y)
    grads = torch.autograd.grad((y * weight).sum(), args)
    torch.testing.assert_close(
        grads, torch.autograd.grad((expected * weight).sum(), args), rtol=1e-4, atol=1e-4
    )


def test_tokens_of_any_layout(convolves):
    x, weight, bias = inputs((2, 700, 64))
    for laid_out in (x.mT.contiguous().mT, torch.stack([x, x], -1)[..., 0], x.transpose(0, 1)):
        torch.testing.assert_close(
            product(laid_out, weight, bias), F.linear(laid_out, weight, bias)
        )


def test_the_chosen_library_computes(convolves, threads):
    with Operations() as operations:
        product(*inputs(SHAPES[0])).sum().backward()
    assert ('convolution' in operations.names) == convolves
    # PyTorch gives oneDNN the 1x1 convolutions of one thread only if they are dilated
    assert operations.dilations == [[1 if threads == 2 else WIDER] * 2] * 2 * convolves


def test_convolutions_of_maps_in_one_thread(convolves, threads):
    conv = nn.Conv2d(64, 48, 1)
    x = torch.randn(1, 64, 30, 40, requires_grad=True)
    weight = torch.randn(1, 48, 30, 40)
    results = []
    for compute in (conv_norm, conv_norm.formula):
        with Operations() as operations:
            y = compute(x, conv, nn.BatchNorm2d(48), norm_before=nn.BatchNorm2d(64))
            grads = torch.autograd.grad((y * weight).sum(), [x, conv.weight])
        results.append((y, *grads))
        wider = convolves and threads == 1 and compute is conv_norm
        assert operations.dilations == [[WIDER if wider else 1] * 2] * 2
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'shape, outputs, dtype',
    [
        ((30, 64), 48, torch.float32),
        ((1200, 64), 8, torch.float32),
        ((1200, 64), 48, torch.float64),
        ((1200, 64), 48, torch.bfloat16),
    ],
    ids=['small input', 'small product', 'float64', 'bfloat16'],
)
def test_what_a_convolution_does_not_suit(convolves, shape, outputs, dtype):
    args = [t.to(dtype) for t in inputs(shape, outputs)]
    with Operations() as operations, torch.no_grad():
        torch.testing.assert_close(product(*args), F.linear(*args))
    assert 'convolution' not in operations.names


def test_autocast_stays_with_linear_layers(convolves):
    args = inputs(SHAPES[0])
    with torch.autocast('cpu', torch.bfloat16), Operations() as operations, torch.no_grad():
        assert product(*args).dtype == torch.bfloat16
    assert 'convolution' not in operations.names


def test_exported_graphs_have_linear_layers(convolves):
    class Layer(torch.nn.Module):
        def forward(self, x, weight, bias):
            return product(x, weight, bias)

    graph = torch.export.export(Layer(), tuple(inputs(SHAPES[0]))).graph
    assert not any('conv' in str(node.target) for node in graph.nodes)


def test_compiles_whole(convolves):
    args = inputs(SHAPES[1])
    compiled = torch.compile(product, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(*args), F.linear(*args))


def test_one_measurement_decides_and_is_told_once(monkeypatch, caplog, tmp_path):
    measured = []
    monkeypatch.setattr(module, 'onednn_lead', lambda: measured.append(1) or 2.0)
    choose_convolution(None)
    logger = MMLogger.get_instance('test_product', logger_name='test_product')
    monkeypatch.setattr(DefaultScope, '_instance_dict', {})
    DefaultScope.get_instance('test_product', scope_name='attnpool_backbones')  # as a Runner does
    logger.addHandler(caplog.handler)
    try:
        with Operations():
            assert not is_convolution_chosen()  # nothing can be measured there
        assert not measured
        with caplog.at_level(logging.INFO):
            assert is_convolution_chosen() and is_convolution_chosen()
    finally:
        logger.removeHandler(caplog.handler)
        choose_convolution(None)
    assert len(measured) == 1
    told = [record.message for record in caplog.records if 'convolutions' in record.message]
    assert len(told) == 1 and '2.00 times' in told[0]


@pytest.mark.parametrize(
    ('measured', 'convolves', 'outruns'),
    [(2.1, True, True), (1.3, True, False), (1.0, True, False), (0.8, True, False),
     (0.6, False, False), (0.0, False, False)],
)  # fmt: skip
def test_equal_libraries_leave_layers_to_onednn_and_attention_to_torch(
    measured, convolves, outruns, monkeypatch
):
    monkeypatch.setattr(module, 'onednn_lead', lambda: measured)
    choose_convolution(None)
    try:
        assert (is_convolution_chosen(), outruns_fused_attention()) == (convolves, outruns)
    finally:
        choose_convolution(None)


@pytest.mark.parametrize('has_log', [False, True])
def test_without_a_run_nothing_is_told(has_log, monkeypatch, caplog):
    monkeypatch.setattr(module, 'onednn_lead', lambda: 2.0)
    monkeypatch.setattr(DefaultScope, '_instance_dict', {})
    monkeypatch.setattr(MMLogger, '_instance_dict', {})
    monkeypatch.setattr(choice, 'print_log', lambda *_: pytest.fail('it told'))
    if has_log:
        MMLogger.get_instance('test_product_alone', logger_name='test_product_alone')
    choose_convolution(None)
    try:
        assert is_convolution_chosen()
    finally:
        choose_convolution(None)


def test_the_measurement_leaves_threads_and_random_numbers_alone(threads):
    state = torch.get_rng_state()
    assert onednn_lead(rounds=3) > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
