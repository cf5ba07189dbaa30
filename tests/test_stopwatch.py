"""What is compared is measured in turns."""

import pytest

from attnpool_backbones.stopwatch import median_seconds, seconds_in_turns


@pytest.mark.parametrize('warm_up', [0, 1, 2])
def test_steps_take_turns_in_being_first_and_warm_up_does_not_count(warm_up):
    calls = []

    def step(name):
        calls.append(name)
        return float(len(calls))

    times = seconds_in_turns([lambda: step('a'), lambda: step('b')], 4, warm_up)
    assert ''.join(calls) in (('abba' * 3)[: len(calls)], ('baab' * 3)[: len(calls)])
    assert len(calls) == 2 * (warm_up + 4)
    counted = range(2 * warm_up + 1, len(calls) + 1)
    assert [len(own) for own in times] == [4, 4]
    assert sorted(sum(times, [])) == list(counted)


def test_a_median_a_call():
    calls = []
    first, second = median_seconds([lambda: calls.append('a'), lambda: calls.append('b')], 3, 2)
    assert first > 0 and second > 0
    assert calls.count('a') == calls.count('b') == 5
