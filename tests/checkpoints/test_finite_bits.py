"""Bits tell exactly whether numbers are finite, of every type and in every layout."""

import numpy as np
import pytest
import torch

from attnpool_backbones.checkpoints.finite_bits import INFINITIES, are_finite, bits_of


def finite(values: torch.Tensor) -> bool:
    return are_finite(bits_of(values), values.dtype)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_all_patterns_of_16_bits(dtype: torch.dtype) -> None:
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    told = torch.tensor([finite(numbers[i : i + 1]) for i in range(len(numbers))])
    assert torch.equal(told, numbers.isfinite())


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_patterns_around_the_ends(dtype: torch.dtype) -> None:
    integers = INFINITIES[dtype][0]
    bits = 8 * integers.itemsize
    random = np.random.default_rng(0).integers(0, 2**bits, 20_000, np.dtype(f'u{integers.name}'))
    sign = 2 ** (bits - 1)
    ends = [
        (base + step) % 2**bits
        for base in (0, sign, INFINITIES[dtype][1], INFINITIES[dtype][1] + sign)
        for step in range(-3, 4)
    ]
    patterns = np.concatenate([random, np.array(ends, np.dtype(f'u{integers.name}'))])
    numbers = torch.from_numpy(patterns.view(integers)).view(dtype)
    assert numbers.isnan().any() and numbers.isinf().any()
    told = torch.tensor([finite(numbers[i : i + 1]) for i in range(len(numbers))])
    assert torch.equal(told, numbers.isfinite())


@pytest.mark.parametrize('bad', [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('dtype', INFINITIES)
def test_one_among_many_is_found_wherever_it_is(dtype: torch.dtype, bad: float) -> None:
    # the greatest numbers, whose sum would overflow
    numbers = torch.full((300_000,), torch.finfo(dtype).max, dtype=dtype)
    numbers[::2] *= -1
    assert finite(numbers)
    for place in (0, 1, 131_071, 131_072, 299_999):
        damaged = numbers.clone()
        damaged[place] = bad
        assert not finite(damaged)


def test_layouts_without_a_copy() -> None:
    maps = torch.zeros(4, 8, 3, 3).to(memory_format=torch.channels_last)
    assert np.shares_memory(bits_of(maps).ravel('K'), maps.numpy())
    for values in (maps, torch.zeros(6, 5)[:, 1:3], torch.zeros(0), torch.zeros(())):
        assert finite(values)
    maps[3, 2, 1, 0] = torch.nan
    assert not finite(maps)
    wide = torch.full((6, 5), torch.inf)
    wide[:, 1:3] = 0
    assert finite(wide[:, 1:3]) and not finite(wide)
