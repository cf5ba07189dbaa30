"""Operators: the formula as a paper has it, and under it the form that computes it fast.

One file an operator::

    @operator
    def squared_relu(x: Tensor) -> Tensor:
        \"\"\"Returns max(x, 0)^2 (arXiv 2109.08668). ...\"\"\"
        return F.relu(x) ** 2


    @squared_relu.fast
    def _(x: Tensor) -> Tensor:
        return _SquaredReLU.apply(x)

``squared_relu(x)`` runs the fast form. ``with ops.formulas(): model(x)`` runs the formulas of all
operators, so it gives the plain form of any model; see :mod:`attnpool_backbones.ops.formula`. Every
operator has a row in ``tests/ops/table.py``, by which the operator contract tests it.
"""

from attnpool_backbones.ops.formula import formulas, operator, recorded_forms

__all__ = ['formulas', 'operator', 'recorded_forms']
