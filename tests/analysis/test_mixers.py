"""Cost of token mixers: MACs and memory are those of arithmetic."""

import json

import pytest

from attnpool_backbones.analysis.command import parser_of_figures, run
from attnpool_backbones.analysis.mixers import MIXERS, exponents, measure
from attnpool_backbones.command_line import UserError

CHANNELS, SIDES = 64, (4, 8, 16)
FORMULAS = {
    'pool': lambda c, n: 0,
    'identity': lambda c, n: 0,
    'random': lambda c, n: n * n * c,
    'dwconv': lambda c, n: 9 * n * c,
    'sepconv': lambda c, n: n * (2 * c * c + 49 * 2 * c + 2 * c * c),
    'attention': lambda c, n: 4 * n * c * c + 2 * n * n * c,
    'spatial_fc': lambda c, n: n * n * c,
    'relative': lambda c, n: 4 * n * c * c + 2 * n * n * c,
    # the convolution after the softmax is one of Fourier transforms
    'relative_after': lambda c, n: 4 * n * c * c + 2 * n * n * c,
}
"""MACs of C channels and N tokens."""


@pytest.fixture(scope='module')
def costs():
    return measure(list(MIXERS), CHANNELS, SIDES, rounds=0)


def test_macs_are_those_of_arithmetic(costs):
    for cost in costs:
        if cost.mixer in FORMULAS:
            assert cost.macs == FORMULAS[cost.mixer](CHANNELS, cost.tokens), cost.mixer
    assert {cost.mixer for cost in costs} == set(MIXERS)


def test_powers_of_the_tokens(costs):
    macs, kept = exponents(costs, 'macs'), exponents(costs, 'kept')
    assert 'pool' not in macs and 'identity' not in macs
    for name in ('dwconv', 'sepconv'):
        assert macs[name] == pytest.approx(1)
    for name in ('spatial_fc', 'random'):
        assert macs[name] == pytest.approx(2)
    assert 1 < macs['attention'] < 2
    # the fast forms keep no maps
    assert all(kept[name] < 1.2 for name in ('sepconv', 'attention', 'relative'))


def test_stored_maps_are_quadratic():
    (cost,) = measure(['attention'], CHANNELS, (16,), rounds=0, formulas=True)
    tokens, heads = 256, CHANNELS // 32
    maps = 4 * heads * tokens**2
    # the map itself, and q, k, v, the scaled queries and the output at most
    assert maps <= cost.kept <= maps + 4 * 6 * tokens * CHANNELS


def test_pooling_has_no_parameters(costs):
    parameters = {cost.mixer: cost.parameters for cost in costs if cost.tokens == 64}
    assert parameters['pool'] == parameters['identity'] == 0
    assert parameters['spatial_fc'] == parameters['random'] == 64**2
    assert parameters['attention'] == 4 * CHANNELS**2 + CHANNELS


def test_the_command_draws_and_tells(tmp_path, capsys):
    line = ['mixers', 'pool', 'attention', '--sides', '4', '6', '8', '--rounds', '1']
    args = parser_of_figures().parse_args([*line, '--out', str(tmp_path)])
    run(args)
    numbers = json.loads((tmp_path / 'mixers.json').read_text())
    assert [cost['tokens'] for cost in numbers['costs']] == [16, 36, 64] * 2
    assert all(cost['seconds'] > 0 for cost in numbers['costs'])
    assert (tmp_path / 'mixers.png').stat().st_size > 5000
    assert 'quadratic' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('names', 'channels', 'message'),
    [(['pooling'], 64, "'pooling'; choose from pool, identity"), (['pool'], 60, 'multiple of 32')],
)
def test_wrong_arguments(names, channels, message):
    with pytest.raises(UserError, match=message):
        measure(names, channels, (4,), rounds=0)
