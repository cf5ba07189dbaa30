"""Our operators equal mmcv's compiled ones: kept results everywhere, fresh ones where they are."""

import importlib
import io
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnpool_backbones.compatibility import serving_operators
from attnpool_backbones.mmcv_operators import extension
from tests.mmcv_operators.draws import DRAWS, Call, assert_equal_results

FIXTURES = Path(__file__).parents[1] / 'data' / 'mmcv_ops'
EXAMPLES = {'nms': 10_000, 'roi_align': 10_000}


def compiled():
    """Returns mmcv's compiled module, None where there is none."""
    module = importlib.import_module('mmcv._ext')
    return module if serving_operators(module).startswith('compiled') else None


@pytest.mark.parametrize('name', DRAWS)
def test_kept_results(name):
    kept = torch.load(FIXTURES / f'{name}.pt')
    assert len(kept) >= 12
    for function, arguments, results, expected in kept:
        call = Call(function, arguments, tuple(results))
        assert_equal_results(call, call.run(extension), expected)


@pytest.mark.slow
@pytest.mark.parametrize('name', DRAWS)
def test_fresh_results(name):
    theirs = compiled()
    if theirs is None:
        pytest.skip('mmcv has no compiled operators here')

    @settings(
        max_examples=EXAMPLES.get(name, 500),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**63 - 1))
    def compare(seed: int):
        for call in DRAWS[name](seed):
            assert_equal_results(call, call.run(extension), call.run(theirs))

    compare()


def make_fixtures() -> None:
    """Writes the kept results; run by hand: python -m tests.mmcv_operators.test_compiled."""
    theirs = compiled()
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWS.items():
        kept, seed, room = [], 0, 60_000
        while len(kept) < 12 or room > 0:
            for call in draw(seed):
                entry = (call.function, call.arguments, call.results, call.run(theirs))
                content = io.BytesIO()
                torch.save(entry, content)
                if content.tell() < 20_000:
                    kept.append(entry)
                    room -= content.tell()
            seed += 1
        torch.save(kept, FIXTURES / f'{name}.pt')


if __name__ == '__main__':
    make_fixtures()
