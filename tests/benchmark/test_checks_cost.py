"""The cost of checks comes with an interval that holds it."""

import numpy as np
import pytest

from attnpool_backbones.benchmark.checks_cost import WARM_UP, interval, paired_seconds


@pytest.mark.parametrize('share', [0.0, 0.01, 0.2])
def test_interval_holds_the_share_in_spite_of_a_changing_machine(share: float) -> None:
    random = np.random.default_rng(0)
    slow = random.choice([1.0, 1.4, 2.0], 300)  # a moment meets both of a pair
    pairs = np.stack([slow * (1 + share), slow], 1) + random.normal(0, 0.02, (300, 2))
    found, low, high = interval(pairs)
    assert low <= found <= high
    assert low - 0.005 <= share <= high + 0.005
    assert high - low < 0.02


def test_both_take_turns_in_being_first() -> None:
    calls: list[str] = []
    pairs = paired_seconds(lambda: calls.append('a'), lambda: calls.append('b'), 4, 60)
    assert len(pairs) == 4 and all(min(pair) > 0 for pair in pairs)
    order = ''.join(calls[2 * WARM_UP :])
    assert order in ('abbaabba', 'baabbaab')


def test_an_end_by_time_keeps_a_pair() -> None:
    assert len(paired_seconds(list, list, 1000, 0)) == 1
