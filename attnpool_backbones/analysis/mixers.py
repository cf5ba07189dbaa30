"""Cost of token mixers against the number of tokens: MACs, memory and time of each alone.

    attnpool figure mixers
    attnpool figure mixers pool attention spatial_fc --sides 14 28 56 --channels 320
    attnpool figure mixers attention relative --formulas

A mixer takes a map of SIDE x SIDE tokens. MACs are those of matrix products and convolutions;
memory is what a training step keeps of the forward pass for the backward pass, parameters aside;
time is that of a forward pass without gradients, the median of interleaved rounds. --formulas runs
the operators as the papers write them, which store attention maps, in place of the fast forms.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor, nn

from attnpool_backbones import ops
from attnpool_backbones.analysis.drawing import Drawing
from attnpool_backbones.benchmark.cost_curves import MIN_POINTS, fit_exponent
from attnpool_backbones.benchmark.kept_memory import kept_bytes
from attnpool_backbones.command_line import UserError, whole_number
from attnpool_backbones.layers.grid_attention import GridAttention
from attnpool_backbones.layers.re_attention import HeadMixing, ReAttention
from attnpool_backbones.layers.relative_bias import RelativeBiasTable
from attnpool_backbones.layers.token_mixers import TOKEN_MIXERS, build_token_mixer
from attnpool_backbones.stopwatch import median_seconds
from attnpool_backbones.zoo.complexity import count_macs, count_parameters

__all__ = ['MIXERS', 'Cost', 'add_arguments', 'build_mixer', 'draw', 'measure']

TAKES_IMAGES = False
HEAD_DIM = 32
SIDES = (7, 14, 28, 56)
LINES = ('-', '--', ':', '-.')
QUANTITIES = {'macs': 'MACs', 'kept': 'memory kept for the backward pass (bytes)',
              'seconds': 'time of a forward pass (s)'}  # fmt: skip

READING = (
    'Both axes are logarithmic, so that a line rises by the power of the tokens that the legend '
    'gives: near 1 is linear, 2 quadratic. Pooling has neither parameters nor MACs.'
)


class TokensOfMap(nn.Module):
    """Re-attention on the positions of a map.

    Args:
        channels: Channels of the map.
        tokens: Positions of the map.
    """

    def __init__(self, channels: int, tokens: int):
        super().__init__()
        heads = channels // HEAD_DIM
        self.attention = ReAttention(channels, heads, HeadMixing(heads, tokens))

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x.flatten(2).mT).mT.unflatten(2, x.shape[-2:])


def _relative(place: str) -> Callable[[int, int], nn.Module]:
    def build(channels: int, side: int) -> nn.Module:
        table = RelativeBiasTable(channels // HEAD_DIM, (side, side))
        return GridAttention(channels, channels, channels, HEAD_DIM, table, bias_place=place)

    return build


MIXERS: Mapping[str, Callable[[int, int], nn.Module]] = {
    **{
        name: lambda channels, side, name=name: build_token_mixer(name, channels, grid=(side, side))
        for name in TOKEN_MIXERS
    },
    'relative': _relative('before'),
    'relative_after': _relative('after'),
    're_attention': lambda channels, side: TokensOfMap(channels, side * side),
}
"""Name -> what builds a mixer for channels and side of a map: those of MetaFormer, CoAtNet's two
forms and DeepViT's."""


@dataclass(frozen=True)
class Cost:
    """What one mixer costs on one map."""

    mixer: str
    tokens: int
    parameters: int
    macs: int
    kept: int
    """Bytes for the backward pass; see :func:`kept_bytes`."""
    seconds: float | None
    """None: not measured."""


def build_mixer(name: str, channels: int, side: int) -> nn.Module:
    """Builds a mixer, without randomness in its forward pass.

    Raises:
        UserError: An unknown name, or channels that heads do not divide.
    """
    if name not in MIXERS:
        raise UserError(f"no token mixer '{name}'; choose from {', '.join(MIXERS)}")
    if channels < 1 or channels % HEAD_DIM:
        raise UserError(f'--channels {channels}: has to be a multiple of {HEAD_DIM}, the heads')
    torch.manual_seed(0)
    return MIXERS[name](channels, side).eval()


def measure(
    names: Sequence[str], channels: int, sides: Sequence[int], rounds: int = 5,
    formulas: bool = False,
) -> list[Cost]:  # fmt: skip
    """Measures mixers.

    Args:
        names: Of :data:`MIXERS`.
        channels: Of the map, a multiple of 32.
        sides: Of the maps, in tokens.
        rounds: Of timing; 0 measures no time.
        formulas: Whether operators run as the papers write them.

    Returns:
        One entry a mixer and side.
    """
    found = []
    for side in sides:
        layers = {name: build_mixer(name, channels, side) for name in names}
        x = torch.randn(1, channels, side, side).contiguous(memory_format=torch.channels_last)
        with ops.formulas(formulas):
            seconds = _times(layers, x, rounds)
            for name, layer in layers.items():
                own = x.clone().requires_grad_()
                macs = count_macs(lambda layer=layer, own=own: layer(own))
                found.append(
                    Cost(
                        name,
                        side * side,
                        count_parameters(layer),
                        macs,
                        kept_bytes(layer, own),
                        seconds.get(name),
                    )
                )
    return sorted(found, key=lambda cost: (names.index(cost.mixer), cost.tokens))


@torch.no_grad()
def _times(layers: Mapping[str, nn.Module], x: Tensor, rounds: int) -> dict[str, float]:
    if not rounds:
        return {}
    seconds = median_seconds([partial(layer, x) for layer in layers.values()], rounds)
    return dict(zip(layers, seconds, strict=True))


def exponents(costs: Sequence[Cost], quantity: str) -> dict[str, float]:
    """Returns the power of the tokens that a quantity of each mixer grows with, if it can be told.

    Args:
        costs: Of :func:`measure`.
        quantity: A key of :data:`QUANTITIES`.
    """
    powers = {}
    for name in dict.fromkeys(cost.mixer for cost in costs):
        points = [(c.tokens, getattr(c, quantity)) for c in costs if c.mixer == name]
        points = [(n, value) for n, value in points if value]
        if len(points) >= MIN_POINTS:
            powers[name] = fit_exponent(*zip(*points, strict=True))
    return powers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    add = parser.add_argument
    add('mixers', nargs='*', metavar='MIXER', help=f'default: all of {", ".join(MIXERS)}')
    add(
        '--channels', type=whole_number(1, 2**16), default=64, metavar='C',
        help='of the map (default: %(default)s)',
    )  # fmt: skip
    add(
        '--sides', type=whole_number(1, 1024), nargs='+', default=SIDES, metavar='SIDE',
        help='of the maps, in tokens (default: 7 14 28 56)',
    )  # fmt: skip
    add(
        '--rounds', type=whole_number(0, 10**6), default=5, metavar='N',
        help='of timing, 0 measures no time (default: %(default)s)',
    )  # fmt: skip
    add('--formulas', action='store_true', help='operators as the papers write them, maps stored')


def draw(args: argparse.Namespace) -> Drawing:
    """Draws the figure."""
    names = args.mixers or list(MIXERS)
    costs = measure(names, args.channels, sorted(set(args.sides)), args.rounds, args.formulas)
    shown = [q for q in QUANTITIES if any(getattr(cost, q) for cost in costs)]
    if not shown:
        raise UserError(f'nothing to draw: {", ".join(names)} cost nothing that is measured')
    figure = Figure(figsize=(4.6 * len(shown), 4.2), layout='constrained')
    powers = {quantity: exponents(costs, quantity) for quantity in shown}
    # One style a mixer in all panels; lines may lie on each other.
    styles = {
        name: dict(color=f'C{i}', linestyle=LINES[i % len(LINES)], marker='o', markersize=3)
        for i, name in enumerate(names)
    }
    for axes, quantity in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for name in names:
            points = [(c.tokens, getattr(c, quantity)) for c in costs if c.mixer == name]
            points = [point for point in points if point[1]]
            if points:
                power = powers[quantity].get(name)
                label = name if power is None else f'{name} (power {power:.2f})'
                axes.plot(*zip(*points, strict=True), label=label, **styles[name])
        axes.set_xscale('log')
        axes.set_yscale('log')
        tokens = sorted({cost.tokens for cost in costs})
        axes.set_xticks(tokens, labels=tokens)
        axes.xaxis.set_minor_locator(NullLocator())  # whose labels would lie over one another
        axes.set_xlabel('tokens', fontsize=8)
        axes.set_title(QUANTITIES[quantity], fontsize=9)
        axes.legend(fontsize=6)
    numbers = dict(
        channels=args.channels, formulas=args.formulas, threads=torch.get_num_threads(),
        costs=[asdict(cost) for cost in costs], exponents=powers,
    )  # fmt: skip
    return Drawing(figure, numbers, READING)
