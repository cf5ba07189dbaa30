"""How SGE changes the distribution of activations (arXiv 1905.09646): more variance, more near 0.

The activation of a group at a position is the length of the group's part of the feature. In each
image and group it is divided by its mean over the positions, before and after, so that a factor
common to all positions drops out: with scales of 0, as SGE starts, both distributions are equal.
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from attnpool_backbones.analysis.drawing import Drawing
from attnpool_backbones.analysis.subjects import Subject, load_subject, views_of
from attnpool_backbones.analysis.watching import watched
from attnpool_backbones.command_line import UserError
from attnpool_backbones.layers.sge import SGE

__all__ = [
    'Distribution',
    'activations_of',
    'add_arguments',
    'bootstrap_ratio',
    'draw',
    'groups_of',
]

EDGES = np.linspace(0, 4, 81)
"""Of the bins of the histograms, in units of the mean; the last bin takes what is larger."""
DECILES = np.arange(0.1, 0.95, 0.1)
RESAMPLES = 2000
MIN_IMAGES = 10
"""Of an interval: resampling fewer shows little of what other images would give."""
MAX_NAMES = 20
"""Units that are named below an axis; of more, every second, third, ..."""

READING = (
    'A variance ratio above 1 and more small activations after the unit: SGE brings out a part of '
    'the positions and pushes the others towards 0. Exactly 1 is a unit as it is initialised; the '
    'brackets are 95 % intervals over the images, given from 10 images on.'
)


class Distribution(NamedTuple):
    """Activations of one image, all groups together."""

    variance: float
    """Mean over groups of the variance over positions."""
    small: float
    """Share below the limit."""
    deciles: np.ndarray
    """Nine values."""
    histogram: np.ndarray
    """Share in each bin of :data:`EDGES`."""


@torch.no_grad()
def activations_of(subject: Subject, inputs: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns the activations before and after each SGE unit.

    Args:
        subject: The model.
        inputs: An image 1, 3, H, W, normalised.

    Returns:
        Name of the unit -> before and after, G, h * w each, float64; each group's mean is 1.

    Raises:
        UserError: The backbone has no SGE.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def look(name: str, unit: SGE, x: Tensor, norm: nn.Module | None = None, **options) -> None:
        x = x if norm is None else norm(x)
        found[name] = groups_of(x, unit.gate(x))

    with watched(subject.backbone, SGE, look):
        subject.backbone(inputs)
    if not found:
        raise UserError(
            f'{subject.name} ({type(subject.backbone).__name__}) has no SGE, whose activations '
            'could be compared; AttnResNet has it, e.g. as sge_resnet50'
        )
    return found


def groups_of(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Returns activations before and after a gate, G, h * w float64, the mean of each group 1.

    Args:
        x: Map 1, C, h, w.
        gate: 1, G, h, w, positive.
    """
    parts = x[0].double().unflatten(0, (gate.shape[1], -1))  # G, C/G, h, w
    before = torch.linalg.vector_norm(parts, dim=1).flatten(1)
    # Only what the gate is relative to its maximum matters; a constant gate is exactly 1.
    relative = gate[0].double().flatten(1)
    after = before * (relative / relative.amax(1, keepdim=True))
    return tuple(a / a.mean(1, keepdim=True).clamp_min(1e-300) for a in (before, after))


def distribution(activations: Tensor, small: float) -> Distribution:
    """Describes activations G, N; those below ``small`` count as small."""
    values = activations.flatten().cpu().numpy()
    counts = np.histogram(values.clip(max=EDGES[-1]), EDGES)[0]
    variance = activations.var(dim=1, correction=0).mean()
    return Distribution(
        float(variance), float((values < small).mean()), np.quantile(values, DECILES),
        counts / len(values),
    )  # fmt: skip


def bootstrap_ratio(
    above: Sequence[float], below: Sequence[float]
) -> tuple[float, float | None, float | None]:
    """Returns the ratio of two means over images and the ends of its 95 % interval.

    The ends are None for less than 10 images.

    Args:
        above: One number an image.
        below: Of the same images.
    """
    above, below = np.asarray(above), np.asarray(below)
    ratio = float(above.mean() / below.mean())
    if len(above) < MIN_IMAGES:
        return ratio, None, None
    chosen = np.random.default_rng(0).integers(0, len(above), (RESAMPLES, len(above)))
    ratios = above[chosen].mean(1) / below[chosen].mean(1)
    return ratio, *(float(q) for q in np.quantile(ratios, (0.025, 0.975)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    parser.set_defaults(limit=50)
    parser.add_argument(
        '--unit', metavar='NAME', help='the unit that is drawn (default: the last one)'
    )
    parser.add_argument(
        '--small', type=float, default=0.5, metavar='SHARE',
        help='of the mean of its group, below which an activation is small (default: %(default)s)',
    )  # fmt: skip


def draw(args: argparse.Namespace) -> Drawing:
    """Draws the figure."""
    subject = load_subject(args.model, args.checkpoint, args.size, args.random_weights, args.device)
    pairs: dict[str, list[tuple[Distribution, Distribution]]] = {}
    names = []
    for view in views_of(subject, args.images, args.limit):
        names.append(view.name)
        for unit, both in activations_of(subject, view.inputs).items():
            pairs.setdefault(unit, []).append(tuple(distribution(a, args.small) for a in both))
    shown = args.unit or list(pairs)[-1]
    if shown not in pairs:
        raise UserError(f'--unit {shown}: not there; the units are {", ".join(pairs)}')
    numbers = {unit: _summary(both) for unit, both in pairs.items()}

    figure = Figure(figsize=(11, 3.6), layout='constrained')
    left, middle, right = figure.subplots(1, 3)
    of = numbers[shown]
    for when, colour, dot in (('before', 'C0', 7), ('after', 'C3', 4)):
        left.stairs(of['histogram'][when], EDGES, color=colour, label=when)
        middle.plot(100 * DECILES, of['deciles'][when], 'o-', color=colour, ms=dot, label=when)
    left.set_title(f'{shown}: distribution', fontsize=9)
    left.set_xlabel("activation / its group's mean", fontsize=8)
    left.set_ylabel('share of the activations', fontsize=8)
    left.legend(fontsize=8)
    ratio, *ends = of['variance_ratio']
    interval = '' if None in ends else f' [{ends[0]:.3f}, {ends[1]:.3f}]'
    middle.set_title(f'deciles; variance x {ratio:.3f}{interval}, images={len(names)}', fontsize=9)
    middle.set_xlabel('percent of the activations that are smaller', fontsize=8)
    middle.set_ylabel("activation / its group's mean", fontsize=8)
    middle.legend(fontsize=8)
    # None becomes nan, of which nothing is drawn
    ratios = np.array([entry['variance_ratio'] for entry in numbers.values()], dtype=float)
    spread = np.abs(ratios[:, 1:] - ratios[:, :1]).T
    right.errorbar(range(len(ratios)), ratios[:, 0], spread, fmt='o', color='C3', capsize=2)
    right.axhline(1, color='grey', linewidth=0.8)
    right.set_title('ratio of variances, unit by unit', fontsize=9)
    right.set_xlabel('unit, by depth', fontsize=8)
    right.set_ylabel('variance after / before', fontsize=8)
    named = range(0, len(numbers), -(-len(numbers) // MAX_NAMES))
    right.set_xticks(named, [list(numbers)[i] for i in named], rotation=90, fontsize=6)
    return Drawing(
        figure,
        dict(model=subject.name, images=names, small=args.small, edges=EDGES, units=numbers),
        READING,
    )


def _summary(pairs: Sequence[tuple[Distribution, Distribution]]) -> dict:
    """Averages the distributions of images, with intervals of the ratio and the shares."""
    before, after = zip(*pairs, strict=True)
    summary: dict = dict(
        variance_ratio=bootstrap_ratio([d.variance for d in after], [d.variance for d in before])
    )
    for name in Distribution._fields:
        summary[name] = {
            when: np.mean([getattr(d, name) for d in all_], axis=0)
            for when, all_ in (('before', before), ('after', after))
        }
    return summary
