"""Binds an operator's fast form to its formula."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from attnpool_backbones.ops.gradients import is_transformed

# One for all threads: the compiler guards a global for nothing.
_formulas_wanted = False
_recording = False  # then some operators have their fast forms among the formulas


def operator(formula: Callable) -> Callable:
    """Makes an operator of its formula; the decorator ``NAME.fast`` then binds the fast form.

    The formula is short, as the paper has it, with shapes at the line ends, and carries the
    docstring. It may be slow and may store what it likes, but has to be differentiable. The fast
    form takes the same arguments, with the same defaults, and gives the same values and gradients
    up to rounding. An operator without a fast form runs its formula.

    Under ``torch.compile`` and ``torch.export`` the fast form is traced, too. A fast form that
    only does by hand what the compiler does by itself (fusing passes, saving less for the backward
    pass) is bound by ``@NAME.fast(compiled=False)``: the compiler sees the formula then, and so
    does ``torch.jit.trace``, which cannot look into a ``torch.autograd.Function``. Loops over
    chunks belong into a ``torch.library.custom_op`` inside of the fast form.

    Under the transforms of ``torch.func`` and in forward-mode differentiation the formula runs.

    An attention is bound by ``@NAME.fast(traced=False)``: ``torch.jit.trace``, and mmengine, which
    counts the products in such a graph, record the formula, or what files hold. It keeps nothing
    for a backward pass meanwhile, as the maps of all layers together would fill the memory; the
    graph that is recorded has gradients all the same.

    Files that other runtimes run hold formulas (:func:`recorded_forms`). A fast form of plain torch
    and of operators, with fewer operations or smaller rounding errors than the formula, is bound by
    ``@NAME.fast(recorded=True)``: files hold it then, with the formulas of the operators in it.

    Returns:
        A function with the formula's signature and docstring. Its attribute ``formula`` is the
        formula, ``fast`` the decorator.
    """
    form, also_compiled, also_recorded, also_traced = formula, True, False, True

    @functools.wraps(formula)
    def call(*args, **kwargs) -> Any:
        if _recording and also_recorded:
            return form(*args, **kwargs)
        if torch.compiler.is_compiling():
            by_formula = not also_compiled
        elif torch.jit.is_tracing():
            if not also_traced:
                with torch.no_grad():
                    return (form if also_recorded else formula)(*args, **kwargs)
            by_formula = not also_compiled or is_transformed()
        else:
            by_formula = is_transformed()
        if _formulas_wanted or by_formula:
            return formula(*args, **kwargs)
        return form(*args, **kwargs)

    def fast(
        fast_form: Callable | None = None,
        *,
        compiled: bool = True,
        recorded: bool = False,
        traced: bool = True,
    ) -> Callable:
        if fast_form is None:
            return functools.partial(fast, compiled=compiled, recorded=recorded, traced=traced)
        nonlocal form, also_compiled, also_recorded, also_traced
        form, also_compiled = fast_form, compiled
        also_recorded, also_traced = recorded, traced
        return fast_form

    call.formula = formula
    call.fast = fast
    return call


@contextmanager
def formulas(wanted: bool = True) -> Iterator[None]:
    """Runs the formulas of all operators in place of their fast forms, in the whole process.

    A backward pass belongs to the forms of its forward pass and may run outside.

    Args:
        wanted: Whether formulas run; False runs the fast forms inside of another ``formulas()``.
    """
    global _formulas_wanted
    before, _formulas_wanted = _formulas_wanted, wanted
    try:
        yield
    finally:
        _formulas_wanted = before


@contextmanager
def recorded_forms() -> Iterator[None]:
    """Runs what a file for other runtimes is to hold: formulas, and fast forms made for it."""
    global _recording
    before, _recording = _recording, True
    try:
        with formulas():
            yield
    finally:
        _recording = before


def formulas_wanted() -> bool:
    """Tells whether formulas run now, e.g. to run a second forward pass as the first."""
    return _formulas_wanted
