"""Every operator keeps the operator contract: it is its formula, in any layout, type and mode."""

import copy
import importlib
import pkgutil
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from attnpool_backbones import ops
from tests.ops.rows import Draw
from tests.ops.table import ROWS

SEEDS = range(12)
each_row = pytest.mark.parametrize('row', ROWS, ids=[row.id for row in ROWS])
each_differentiable_row = pytest.mark.parametrize(
    'row', [row for row in ROWS if row.differentiable], ids=lambda row: row.id
)


def tensors_of(value) -> Iterator[Tensor]:
    """Yields the tensors in arguments or results, parameters of modules included."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from tensors_of(entry)


def copied(args: tuple) -> tuple:
    """Copies arguments; each copy is a leaf that wants gradients as the original does."""
    return tuple(
        a.detach().clone().requires_grad_(a.requires_grad) if isinstance(a, Tensor)
        else copy.deepcopy(a)
        for a in args
    )  # fmt: skip


def changed(args: tuple, change) -> tuple:
    """Applies a change to every floating-point tensor and module."""
    return tuple(
        change(a)
        if isinstance(a, nn.Module) or (isinstance(a, Tensor) and a.is_floating_point())
        else a
        for a in args
    )


def gradients(outputs, args: tuple) -> list[Tensor | None]:
    """Returns the gradients of a sum with different weights of all outputs."""
    generator = torch.Generator().manual_seed(7)
    total = sum(
        (y * torch.randn(y.shape, dtype=y.dtype, generator=generator)).sum()
        for y in tensors_of(outputs)
        if y.is_floating_point()
    )
    wanted = [t for t in tensors_of(args) if t.requires_grad]
    return list(torch.autograd.grad(total, wanted, allow_unused=True))


def run(function, args: tuple, differentiable: bool) -> tuple:
    """Returns results, gradients and the buffers of modules after a call."""
    outputs = function(*args)
    grads = gradients(outputs, args) if differentiable else []
    grads = [g if g is None else g.contiguous() for g in grads]
    buffers = [b for a in args if isinstance(a, nn.Module) for b in a.buffers()]
    return [y.detach() for y in tensors_of(outputs)], grads, buffers


def assert_same(computed, expected, **tolerance):
    for a, b in zip(computed, expected, strict=True):
        for x, y in zip(a, b, strict=True):
            if x is None or y is None:
                nonzero = x if y is None else y
                assert nonzero is None or not nonzero.any()
            else:
                torch.testing.assert_close(x, y, **tolerance)


def test_every_operator_has_a_row():
    operators = set()
    for found in pkgutil.iter_modules(ops.__path__, f'{ops.__name__}.'):
        for value in vars(importlib.import_module(found.name)).values():
            if hasattr(value, 'formula') and callable(value):
                operators.add(value)
    assert {row.operator for row in ROWS} == operators


@each_row
@pytest.mark.parametrize('seed', SEEDS)
def test_equals_its_formula(row, seed):
    args = row.example(Draw(seed))
    given = copied(args)
    expected = run(row.operator.formula, copied(args), row.differentiable)
    assert_same(run(row.operator, args, row.differentiable), expected)
    if row.differentiable:
        assert_same([tensors_of(args)], [tensors_of(given)], rtol=0, atol=0)


@each_row
@pytest.mark.parametrize('seed', SEEDS)
def test_without_gradients_too(row, seed):
    args = row.example(Draw(seed))
    given = copied(args)
    with torch.no_grad():
        assert_same([tensors_of(row.operator(*args))], [tensors_of(row.operator.formula(*given))])
        given = copied(row.example(Draw(seed)))
    for position, (a, b) in enumerate(zip(args, given, strict=True)):
        if position not in row.overwrites:
            assert_same([tensors_of(a)], [tensors_of(b)], rtol=0, atol=0)


@each_differentiable_row
def test_derivatives_are_those_of_the_values(row):
    args = row.example(Draw(0, tiny=True))
    wanted = [t for t in tensors_of(args) if t.requires_grad]

    def function(*_):
        # A module's parameters are changed where they lie.
        return tuple(y for y in tensors_of(row.operator(*args)) if y.requires_grad)

    assert torch.autograd.gradcheck(function, wanted)


def _channels_last(x: Tensor) -> Tensor:
    if x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x


def _reversed_axes(x: Tensor) -> Tensor:
    axes = tuple(reversed(range(x.dim())))
    return x.permute(axes).contiguous().permute(axes)


def _with_gaps(x: Tensor) -> Tensor:
    return torch.stack([x, x], dim=-1)[..., 0] if x.dim() else x


@pytest.mark.parametrize('layout', [_channels_last, _reversed_axes, _with_gaps])
@pytest.mark.parametrize('row', [row for row in ROWS if row.layouts], ids=lambda row: row.id)
def test_layouts_change_nothing(row, layout):
    args = row.example(Draw(3))
    expected = run(row.operator.formula, copied(args), row.differentiable)

    def laid_out(a):
        if isinstance(a, nn.Module):
            return a
        return layout(a.detach()).requires_grad_(a.requires_grad)

    assert_same(run(row.operator, changed(args, laid_out), row.differentiable), expected)


@pytest.mark.parametrize('autocast', [False, True], ids=['', 'autocast'])
@pytest.mark.parametrize('row', [row for row in ROWS if row.bfloat16], ids=lambda row: row.id)
def test_bfloat16_is_as_close_as_the_formula(row, autocast):
    args = row.example(Draw(5))
    dtype = torch.float32 if autocast else torch.bfloat16
    # Rounded once, so that both types compute from the same numbers.
    args = changed(args, lambda a: copy.deepcopy(a.detach() if isinstance(a, Tensor) else a)
                   .to(torch.bfloat16).double())  # fmt: skip
    with torch.no_grad():
        exact = list(tensors_of(row.operator.formula(*copied(args))))
        narrow = changed(copied(args), lambda a: a.to(dtype))
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            by_formula = list(tensors_of(row.operator.formula(*copied(narrow))))
            computed = list(tensors_of(row.operator(*narrow)))
    for y, formula, right in zip(computed, by_formula, exact, strict=True):
        if not right.is_floating_point():
            continue
        assert y.dtype == formula.dtype
        scale = right.abs().max().clamp_min(1e-3)
        error, allowed = ((t.double() - right).abs().max() / scale for t in (y, formula))
        assert error <= max(2 * allowed, 0.02), f'{error:.1e}, formula {allowed:.1e}'


class _Recorder(TorchDispatchMode):
    """Records the calls of this package's own torch operators."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == 'attnpool_backbones':
            self.calls.append((function, args, kwargs or {}))
        return function(*args, **(kwargs or {}))


@each_row
def test_its_torch_operators_are_sound(row):
    args = row.example(Draw(1))
    with _Recorder() as recorder:
        run(row.operator, args, row.differentiable)
    for function, given, options in recorder.calls:
        given = [a.detach().clone() if isinstance(a, Tensor) else a for a in given]
        torch.library.opcheck(function, given, options)


@each_row
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)  # nms
def test_compiled_is_the_same(row):
    torch._dynamo.reset()
    compiled = torch.compile(lambda *args: row.operator(*args), fullgraph=True, backend='aot_eager')
    for seed in (1, 2):  # the second time with dynamic sizes
        args = row.example(Draw(seed))
        expected = run(row.operator.formula, copied(args), row.differentiable)
        assert_same(run(compiled, copied(args), row.differentiable), expected)
    args = row.example(Draw(1))
    expected = row.operator.formula(*copied(args))
    with torch.no_grad():
        assert_same([tensors_of(compiled(*copied(args)))], [tensors_of(expected)])
