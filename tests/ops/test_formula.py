"""The device that binds fast forms to formulas."""

import pytest
import torch

from attnpool_backbones import ops
from attnpool_backbones.ops.formula import formulas_wanted


def make(**options):
    @ops.operator
    def double(x, times=1):
        """Doubles."""
        return ('formula', x, times)

    @double.fast(**options)
    def _(x, times=1):
        return ('fast', x, times)

    return double


def test_fast_unless_formulas_are_wanted():
    double = make()
    assert double(3) == double(x=3) == ('fast', 3, 1)
    with ops.formulas():
        assert double(3, times=2) == ('formula', 3, 2)
        with ops.formulas(False):
            assert double(3) == ('fast', 3, 1)
        assert formulas_wanted()
    assert double(3) == ('fast', 3, 1) and not formulas_wanted()


def test_what_files_hold():
    inner, plain = make(), make()

    @ops.operator
    def folded(x):
        return 'formula', plain(x)

    @folded.fast(recorded=True)
    def _(x):
        return 'fast', inner(x)

    with ops.recorded_forms():
        assert folded(3) == ('fast', ('formula', 3, 1)) and formulas_wanted()
        assert plain(3) == ('formula', 3, 1)
    with ops.formulas():
        assert folded(3) == ('formula', ('formula', 3, 1))
    assert folded(3) == ('fast', ('fast', 3, 1)) and not formulas_wanted()


def test_the_fast_form_is_back_after_an_error():
    with pytest.raises(ZeroDivisionError), ops.formulas():
        raise ZeroDivisionError
    assert not formulas_wanted()


def test_formula_is_at_hand_and_documents_the_operator():
    double = make()
    assert double.formula(3) == ('formula', 3, 1)
    assert (double.__doc__, double.__name__) == ('Doubles.', 'double')


def test_an_operator_without_a_fast_form_is_its_formula():
    assert ops.operator(lambda x: x + 1)(1) == 2


@pytest.mark.parametrize(
    ('options', 'factor', 'keeps'),
    [
        ({}, 3, True),
        (dict(compiled=False), 2, True),
        (dict(traced=False), 2, False),
        (dict(traced=False, recorded=True), 3, False),
    ],
    ids=str,
)
def test_what_a_tracer_records(options, factor, keeps):
    kept = []

    @ops.operator
    def scaled(x):
        return x * 2

    @scaled.fast(**options)
    def _(x):
        return x * 3

    def model(x):
        y = scaled(x)
        kept.append(y.requires_grad)
        return y

    x = torch.ones(2, requires_grad=True)
    graph = torch.jit.trace(model, x, check_trace=False)
    assert kept == [keeps]
    assert scaled(x).tolist() == [3, 3] and graph(x).tolist() == [factor] * 2
    (gradient,) = torch.autograd.grad(graph(x).sum(), x)
    assert gradient.tolist() == [factor] * 2


@pytest.mark.parametrize('compiled', [True, False])
def test_what_the_compiler_sees(compiled):
    @ops.operator
    def scaled(x):
        return x * 2

    @scaled.fast(compiled=compiled)
    def _(x):
        return x * 3

    graph = torch.compile(lambda x: scaled(x), fullgraph=True, backend='eager')
    x = torch.ones(2)
    assert scaled(x).tolist() == [3, 3]
    assert graph(x).tolist() == ([3, 3] if compiled else [2, 2])
    with ops.formulas():  # compiled anew
        assert graph(x).tolist() == [2, 2]
    assert graph(x).tolist() == ([3, 3] if compiled else [2, 2])
