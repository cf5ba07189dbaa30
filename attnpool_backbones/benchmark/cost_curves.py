"""Cost as a function of resolution, and the power law through it."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from attnpool_backbones.benchmark.cases import unusual

STRIDE = 16
"""Pixels along the side of what counts as a token."""
MIN_POINTS = 3


class Curve(NamedTuple):
    """Cost of one model over the size of its input."""

    label: str
    quantity: str
    """``'time'`` (seconds) or ``'memory'`` (bytes above those before the run)."""
    tokens: list[float]
    """Ascending: batch * H * W / 16^2."""
    values: list[float]
    exponent: float
    """Of the power of the tokens that fits best."""


def fit_exponent(tokens: Sequence[float], values: Sequence[float]) -> float:
    """Returns e of ``values = c * tokens ** e`` by least squares of the logarithms.

    Raises:
        ValueError: Fewer than two different, positive points.
    """
    if len(set(tokens)) < 2 or min(*tokens, *values) <= 0:
        raise ValueError(f'an exponent needs two positive points, not {list(tokens)}, {values}')
    x, y = ([math.log(value) for value in series] for series in (tokens, values))
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - x_mean) ** 2 for a in x)


def tokens_of(result: dict[str, Any]) -> float:
    """Returns the tokens of stride 16 of a result's input."""
    height, width = result['size']
    return result['batch'] * height * width / STRIDE**2


def cost_of(result: dict[str, Any]) -> float:
    """Returns the seconds, or the bytes that the run needed besides weights and libraries."""
    if result['quantity'] == 'time':
        return result['seconds']
    return max(result['peak_bytes'] - result['idle_bytes'], 1)


def cost_curves(results: Iterable[dict[str, Any]]) -> list[Curve]:
    """Finds the models that were measured at three sizes or more.

    Args:
        results: Of a benchmark; of equal sizes the first counts.
    """
    series: dict[tuple, dict[float, float]] = {}
    for result in results:
        words = [result['model'], result['form'], result['task'], *unusual(result)]
        points = series.setdefault((' '.join(words), result['quantity']), {})
        points.setdefault(tokens_of(result), cost_of(result))
    curves = []
    for (label, quantity), points in series.items():
        if len(points) >= MIN_POINTS:
            tokens = sorted(points)
            values = [points[n] for n in tokens]
            curves.append(Curve(label, quantity, tokens, values, fit_exponent(tokens, values)))
    return curves
