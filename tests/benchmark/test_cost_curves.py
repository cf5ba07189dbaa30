"""The exponent of known curves, and which results make a curve."""

from dataclasses import asdict

import pytest

from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.cost_curves import cost_curves, fit_exponent

SIZES = [(64, 64), (64, 128), (128, 128)]


def time_result(size, seconds, **fields):
    case = Case(model='DeepViT:nano', size=size, **fields)
    return dict(asdict(case), quantity='time', seconds=seconds)


@pytest.mark.parametrize('exponent', [0.5, 1.0, 2.0])
def test_exponent_of_a_power(exponent):
    tokens = [1024, 2080, 4200, 10752]
    values = [3e-3 * n**exponent for n in tokens]
    assert fit_exponent(tokens, values) == pytest.approx(exponent)


def test_exponent_of_a_sum_lies_between():
    tokens = [1024, 2080, 4200]
    assert 1 < fit_exponent(tokens, [1000 * n + n**2 for n in tokens]) < 2


@pytest.mark.parametrize(('tokens', 'values'), [([4, 4], [1, 2]), ([4, 8], [1, 0])])
def test_exponent_needs_two_positive_points(tokens, values):
    with pytest.raises(ValueError, match='two positive points'):
        fit_exponent(tokens, values)


def test_three_sizes_make_a_curve():
    results = [time_result(size, size[0] * size[1] / 1e4) for size in reversed(SIZES)]
    results += [time_result(size, 1.0, task='train') for size in SIZES[:2]]
    (curve,) = cost_curves(results)
    assert curve.label == 'DeepViT:nano ours forward'
    assert curve.tokens == [16, 32, 64]
    assert curve.exponent == pytest.approx(1)


def test_batches_have_curves_of_their_own():
    results = [
        time_result(size, batch * size[0] * size[1], batch=batch)
        for batch in (1, 2)
        for size in SIZES
    ]
    results += [time_result(size, 1.0, batch=4) for size in SIZES[:2]]
    one, two = cost_curves(results)
    assert (one.label, two.label) == (
        'DeepViT:nano ours forward',
        'DeepViT:nano ours forward batch 2',
    )
    assert (one.tokens, two.tokens) == ([16, 32, 64], [32, 64, 128])


def test_memory_counts_from_that_before_the_run():
    results = [
        dict(asdict(Case(model='m', size=size)), quantity='memory', idle_bytes=10**9,
             peak_bytes=10**9 + size[0] * size[1])
        for size in SIZES
    ]  # fmt: skip
    (curve,) = cost_curves(results)
    assert curve.values == [64 * 64, 64 * 128, 128 * 128]
    assert curve.exponent == pytest.approx(1)
