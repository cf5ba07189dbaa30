"""Every operator keeps the operator contract: it is its formula, in any layout, type and mode."""

import copy
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint

from attnpool_backbones import ops
from tests.ops.mmcv_rows import MMCV_ROWS
from tests.ops.rows import Draw
from tests.ops.table import ROWS

SEEDS = range(8)
"""Each draws other sizes and values."""
each_row = pytest.mark.parametrize('row', ROWS, ids=[row.id for row in ROWS])
each_differentiable_row = pytest.mark.parametrize(
    'row', [row for row in ROWS if row.differentiable], ids=lambda row: row.id
)


def tensors_of(value) -> Iterator[Tensor]:
    """Yields the tensors in arguments or results, parameters of modules included."""
    for leaf in tree_leaves(value):
        if isinstance(leaf, nn.Module):
            yield from leaf.parameters()
        elif isinstance(leaf, Tensor):
            yield leaf


def modules_of(args: tuple) -> list[nn.Module]:
    return [leaf for leaf in tree_leaves(args) if isinstance(leaf, nn.Module)]


def copied(args: tuple) -> tuple:
    """Copies arguments; each copy is a leaf that wants gradients as the original does."""
    return changed(args, lambda a: a.detach().clone().requires_grad_(a.requires_grad)
                   if isinstance(a, Tensor) else copy.deepcopy(a))  # fmt: skip


def changed(args: tuple, change) -> tuple:
    """Applies a change to every floating-point tensor and module."""
    return tree_map(
        lambda a: (
            change(a)
            if isinstance(a, nn.Module) or (isinstance(a, Tensor) and a.is_floating_point())
            else a
        ),
        args,
    )


def gradients(outputs, args: tuple) -> list[Tensor | None]:
    """Returns the gradients of a sum with different weights of all outputs."""
    generator = torch.Generator().manual_seed(7)
    total = sum(
        (y * torch.randn(y.shape, dtype=y.dtype, generator=generator).to(y.device)).sum()
        for y in tensors_of(outputs)
        if y.is_floating_point()
    )
    wanted = [t for t in tensors_of(args) if t.requires_grad]
    return list(torch.autograd.grad(total, wanted, allow_unused=True))


def run(row, function, args: tuple) -> tuple:
    """Returns results, gradients and the buffers of modules after a call."""
    outputs = call(row, function, args)
    grads = gradients(outputs, args) if row.differentiable else []
    buffers = [buffer for module in modules_of(args) for buffer in module.buffers()]
    return [y.detach() for y in outputs], grads, buffers


def call(row, function, args: tuple) -> list[Tensor]:
    """Returns the tensors among the results; operators that draw, draw the same every time."""
    torch.manual_seed(3)
    return list(tensors_of(row.results(function(*args))))


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
        if found.name.endswith('.mixing_kernels') and not importlib.util.find_spec('triton'):
            continue  # what another module calls on a GPU
        for value in vars(importlib.import_module(found.name)).values():
            if hasattr(value, 'formula') and callable(value):
                operators.add(value)
    assert {row.operator for row in ROWS} == operators


@each_row
def test_equals_its_formula(row):
    for seed in SEEDS:
        args = row.example(Draw(seed))
        given = copied(args)
        expected = run(row, row.operator.formula, copied(args))
        assert_same(run(row, row.operator, args), expected)
        if row.differentiable:
            assert_same([tensors_of(args)], [tensors_of(given)], rtol=0, atol=0)


@each_row
def test_without_gradients_too(row):
    for seed in SEEDS:
        args = row.example(Draw(seed))
        given = copied(args)
        with torch.no_grad():
            assert_same([call(row, row.operator, args)], [call(row, row.operator.formula, given)])
        given = row.example(Draw(seed))
        for position, (a, b) in enumerate(zip(args, given, strict=True)):
            if position not in row.overwrites:
                assert_same([tensors_of(a)], [tensors_of(b)], rtol=0, atol=0)


WITHOUT_IMAGES = [row for row in ROWS if row not in MMCV_ROWS]
"""Operators of mmcv say themselves what they take."""


@pytest.mark.parametrize('row', WITHOUT_IMAGES, ids=lambda row: row.id)
@pytest.mark.parametrize('grad', [True, False], ids=['with gradients', 'without'])
def test_no_images_give_none(row, grad):
    """E.g. a region head of an image without proposals."""
    for seed in range(3):
        args = tuple(
            a[:0].detach().requires_grad_() if i in row.batched and a is not None else a
            for i, a in enumerate(row.example(Draw(seed)))
        )
        if grad:
            expected = run(row, row.operator.formula, copied(args))
            assert_same(run(row, row.operator, copied(args)), expected, equal_nan=True)
        else:
            with torch.no_grad():
                expected = [call(row, row.operator.formula, copied(args))]
                assert_same([call(row, row.operator, args)], expected, equal_nan=True)


@each_differentiable_row
def test_derivatives_are_those_of_the_values(row):
    args = row.example(Draw(0, tiny=True))
    wanted = [t for t in tensors_of(args) if t.requires_grad]

    def function(*_):
        # A module's parameters are changed where they lie.
        return tuple(y for y in call(row, row.operator, args) if y.requires_grad)

    assert torch.autograd.gradcheck(function, wanted, fast_mode=True)


def _channels_last(x: Tensor) -> Tensor:
    if x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x


NOT_TWICE = (
    'differentiable once|no autograd formula was registered|derivative for .* not implemented'
)


@pytest.mark.parametrize('power', [1, 2])  # with 1 the gradients of the results want none
@pytest.mark.parametrize('layout', [lambda x: x, _channels_last], ids=['as drawn', 'channels_last'])
@each_differentiable_row
def test_second_derivatives_are_right_or_refused(row, layout, power):
    for seed in range(2):
        args = row.example(Draw(seed))
        if row.layouts:
            args = changed(args, lambda a: a if isinstance(a, nn.Module) else layout(a))
        with ops.formulas():
            expected = second_derivatives(row, row.operator, args, power)
        try:
            computed = second_derivatives(row, row.operator, args, power)
        except RuntimeError as error:
            assert re.search(NOT_TWICE, str(error)), error
        else:
            assert_same([computed], [expected])


def second_derivatives(row, function, args: tuple, power: int) -> list[Tensor | None]:
    """Returns the gradients of a gradient's square, of results beside other terms of a loss."""
    args = changed(
        args,
        lambda a: copy.deepcopy(a) if isinstance(a, nn.Module)
        else a.detach().requires_grad_(a.requires_grad),
    )  # fmt: skip
    wanted = [t for t in tensors_of(args) if t.requires_grad]
    total = sum((y**power).sum() for y in call(row, function, args) if y.requires_grad)
    total = total + sum((t**3).sum() for t in wanted)
    first = torch.autograd.grad(total, wanted, create_graph=True)
    return list(torch.autograd.grad(sum(g.square().sum() for g in first), wanted))


@pytest.mark.parametrize('create_graph', [False, True])
@each_differentiable_row
def test_checkpointed_is_the_same(row, create_graph):
    args = row.example(Draw(2))
    wanted = [t for t in tensors_of(args) if t.requires_grad]

    def computed(run):
        torch.manual_seed(3)
        total = sum((y**2).sum() for y in run() if y.requires_grad)
        return torch.autograd.grad(total, wanted, allow_unused=True, create_graph=create_graph)

    def function():
        return list(tensors_of(row.results(row.operator(*args))))

    assert_same([computed(lambda: checkpoint(function, use_reentrant=False))], [computed(function)])


def _reversed_axes(x: Tensor) -> Tensor:
    axes = tuple(reversed(range(x.dim())))
    return x.permute(axes).contiguous().permute(axes)


def _with_gaps(x: Tensor) -> Tensor:
    return torch.stack([x, x], dim=-1)[..., 0] if x.dim() else x


@pytest.mark.parametrize('layout', [lambda x: x, _channels_last], ids=['as drawn', 'channels_last'])
@each_differentiable_row
def test_the_input_may_want_no_gradient(row, layout):
    """E.g. the map of a frozen stem."""
    first, *rest = row.example(Draw(4))
    if first is not None:
        first = layout(first.detach()) if row.layouts else first.detach()
    args = (first, *rest)
    if any(t.requires_grad for t in tensors_of(args)):
        expected = run(row, row.operator.formula, copied(args))
        assert_same(run(row, row.operator, copied(args)), expected)


@pytest.mark.parametrize('layout', [_channels_last, _reversed_axes, _with_gaps])
@pytest.mark.parametrize('row', [row for row in ROWS if row.layouts], ids=lambda row: row.id)
def test_layouts_change_nothing(row, layout):
    args = row.example(Draw(3))
    expected = run(row, row.operator.formula, copied(args))

    def laid_out(a):
        if isinstance(a, nn.Module):
            return a
        return layout(a.detach()).requires_grad_(a.requires_grad)

    assert_same(run(row, row.operator, changed(args, laid_out)), expected)


NARROW = [
    *(pytest.param(row, torch.bfloat16, False, id=f'{row.id}-bfloat16') for row in ROWS),
    *(pytest.param(row, torch.bfloat16, True, id=f'{row.id}-autocast') for row in ROWS),
    *(pytest.param(row, torch.float16, False, id=f'{row.id}-float16') for row in MMCV_ROWS),
]
"""Not all that layers need is there in float16 on a CPU; what mmcv's operators need is."""


@pytest.mark.parametrize(
    ('row', 'narrow', 'autocast'), [case for case in NARROW if case.values[0].bfloat16]
)
def test_narrow_types_are_as_close_as_the_formula(row, narrow, autocast):
    assert_as_close_as_the_formula(row, row.example(Draw(5)), 'cpu', narrow, autocast)


def assert_as_close_as_the_formula(row, args, device, narrow, autocast):
    dtype = torch.float32 if autocast else narrow
    # Rounded once, so that both types compute from the same numbers.
    args = changed(args, lambda a: copy.deepcopy(a.detach() if isinstance(a, Tensor) else a)
                   .to(narrow).double())  # fmt: skip
    with torch.no_grad():
        exact = call(row, row.operator.formula, copied(args))
        rounded = changed(copied(args), lambda a: a.to(dtype))
        with torch.autocast(device, narrow, enabled=autocast):
            by_formula = call(row, row.operator.formula, copied(rounded))
            computed = call(row, row.operator, rounded)
    for y, formula, right in zip(computed, by_formula, exact, strict=True):
        if not right.is_floating_point():
            continue
        # The operators' own autocast differs: some of torch's run in bfloat16, some do not.
        assert autocast or y.dtype == formula.dtype
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
        run(row, row.operator, args)
    for function, given, options in recorder.calls:
        given = [a.detach().clone() if isinstance(a, Tensor) else a for a in given]
        torch.library.opcheck(function, given, options)


@each_row
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)  # nms
def test_compiled_is_the_same(row):
    torch._dynamo.reset()
    compiled = torch.compile(lambda *args: row.operator(*args), fullgraph=True, backend='aot_eager')
    dynamic = torch.__version__ >= row.dynamic_since  # of a type that compares versions
    with torch._dynamo.config.patch(automatic_dynamic_shapes=dynamic):
        for seed in (1, 2):  # the second time with dynamic sizes
            args = row.example(Draw(seed))
            expected = run(row, row.operator.formula, copied(args))
            assert_same(run(row, compiled, copied(args)), expected)
        args = row.example(Draw(1))
        expected = call(row, row.operator.formula, copied(args))
        with torch.no_grad():
            assert_same([call(row, compiled, copied(args))], [expected])


@pytest.mark.parametrize('row', MMCV_ROWS, ids=lambda row: row.id)
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)  # nms
def test_exported_is_the_same(row):
    class Model(nn.Module):
        def forward(self, *args):
            return row.operator(*args)

    args = changed(row.example(Draw(1)), lambda a: a.detach() if isinstance(a, Tensor) else a)
    expected = call(row, row.operator.formula, copied(args))
    exported = torch.export.export(Model(), copied(args))
    assert_same([call(row, exported.module(), copied(args))], [expected])
