"""What the attention units of a network bring out: gates, and feature norms before and after."""

import argparse
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attnpool_backbones.analysis.drawing import Drawing, axes_grid, heat, show_image
from attnpool_backbones.analysis.subjects import Subject, View, images_of, load_subject
from attnpool_backbones.analysis.watching import watched
from attnpool_backbones.command_line import UserError
from attnpool_backbones.layers.bam import BAM
from attnpool_backbones.layers.cbam import CBAM
from attnpool_backbones.layers.global_context import GC
from attnpool_backbones.layers.selective_kernel import SelectiveKernel
from attnpool_backbones.layers.sge import SGE
from attnpool_backbones.layers.squeeze_excite import SqueezeExcite

__all__ = ['GATED_UNITS', 'Gate', 'add_arguments', 'draw', 'gates_of']

GATED_UNITS: dict[type[nn.Module], str] = {
    SGE: 'SGE', CBAM: 'CBAM', BAM: 'BAM', SqueezeExcite: 'SE', SelectiveKernel: 'SK', GC: 'GC',
}  # fmt: skip
"""Units that have a method ``gate``, and what they are called."""

READING = (
    'Gate: mean over channels of what each position is scaled by (GC: the weights of the positions '
    'in its global vector; SE and SK have one gate per channel, equal everywhere). Norm: length of '
    "each position's feature before the unit and after it; a unit that works makes the "
    'object brighter against the rest.'
)


class Gate(NamedTuple):
    """An attention unit in one forward pass of an image."""

    name: str
    """Of the unit in the model."""
    kind: str
    gate: Tensor
    """Mean over groups or channels, h, w; 1, 1 where all positions are scaled alike."""
    range: tuple[float, float]
    """Smallest and largest value of the gate."""
    before: Tensor
    """Length of the feature of each position before the unit, h, w."""
    after: Tensor
    """The same after the unit, without the shortcut of the block, h', w'."""

    @property
    def contrast(self) -> tuple[float, float]:
        """Deviation of the lengths over their mean, before and after."""
        return contrast(self.before), contrast(self.after)


def contrast(lengths: Tensor) -> float:
    """Returns the standard deviation of a map over its mean: equal for a map times a number."""
    return float(lengths.std(correction=0) / lengths.mean().clamp_min(1e-12))


@torch.no_grad()
def gates_of(subject: Subject, inputs: Tensor) -> list[Gate]:
    """Runs an image through a backbone and looks at each attention unit.

    Args:
        subject: The model.
        inputs: An image 1, 3, H, W, normalised.

    Raises:
        UserError: The backbone has no attention unit.
    """
    found: list[Gate] = []

    def look(
        name: str, unit: nn.Module, x: Tensor, norm: nn.Module | None = None, **options
    ) -> None:
        x = x if norm is None else norm(x)
        gate = unit.gate(x)
        kind = next(name for kind, name in GATED_UNITS.items() if isinstance(unit, kind))
        after = unit.forward(x.clone())  # without the shortcut that some add
        found.append(
            Gate(name, kind, gate[0].mean(0), (float(gate.min()), float(gate.max())),
                 lengths_of(x), lengths_of(after))
        )  # fmt: skip

    with watched(subject.backbone, tuple(GATED_UNITS), look):
        subject.backbone(inputs)
    if not found:
        raise UserError(
            f'{subject.name} ({type(subject.backbone).__name__}) has no attention unit with a '
            f'gate; {", ".join(GATED_UNITS.values())} have one'
        )
    return found


def lengths_of(x: Tensor) -> Tensor:
    """Returns the length of each position's feature of the first map of B, C, h, w: h, w."""
    return torch.linalg.vector_norm(x[0].float(), dim=0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    parser.add_argument(
        '--units', nargs='+', metavar='NAME',
        help='units that are drawn, as the numbers name them (default: the last of each stage)',
    )  # fmt: skip
    parser.add_argument(
        '--beside', metavar='MODEL',
        help='another model, e.g. the same ResNet without the unit, whose stages are drawn beside',
    )  # fmt: skip
    parser.add_argument('--beside-checkpoint', metavar='FILE', help='of that model')


def draw(args: argparse.Namespace) -> Drawing:
    """Draws the figure."""
    subject = load_subject(args.model, args.checkpoint, args.size, args.random_weights, args.device)
    other = None
    if args.beside:
        other = load_subject(
            args.beside, args.beside_checkpoint, args.size, args.random_weights, args.device
        )
    numbers, rows = [], []
    for name, image in images_of(subject, args.images, args.limit):
        view = subject.prepare(name, image)
        gates = gates_of(subject, view.inputs)
        numbers.append(dict(image=view.name, units=[_numbers(gate) for gate in gates]))
        shown = _shown(gates, args.units)
        stages = dict(own=_Stages(subject.name, view, _stages(subject, view.inputs)))
        if other is not None:
            # as it was trained: its pixels and its size may be others
            beside = other.prepare(name, image)
            stages['beside'] = _Stages(other.name, beside, _stages(other, beside.inputs))
            _require_common_size(shown, stages['beside'])
        numbers[-1]['stages'] = {
            name: [dict(lengths=s, contrast=contrast(s)) for s in one.lengths]
            for name, one in stages.items()
        }
        rows += [(view, gate, stages) for gate in shown]
    titles = ['own', 'beside'] if other is not None else []
    figure, axes = axes_grid(len(rows), 4 + len(titles), rows[0][0].image)
    for row, (view, gate, stages) in zip(axes, rows, strict=True):
        show_image(row[0], view.image, view.name)
        low, high = gate.range
        one = gate.gate.numel() == 1
        title = f'{gate.kind} {gate.name}\ngate {low:.2f} to {high:.2f}'
        whole = gate.gate.expand(gate.before.shape) if one else gate.gate
        heat(row[1], view.image, whole, view.padded, title + ' by channel' * one)
        before, after = gate.contrast
        heat(row[2], view.image, gate.before, view.padded, f'norm before\ncontrast {before:.2f}')
        heat(row[3], view.image, gate.after, view.padded, f'norm after\ncontrast {after:.2f}')
        for cell, name in zip(row[4:], titles, strict=False):
            whose, seen, all_lengths = stages[name]
            for lengths in all_lengths:
                if lengths.shape == gate.after.shape:
                    heat(cell, seen.image, lengths, seen.padded,
                         f'{whose}\nstage, contrast {contrast(lengths):.2f}')  # fmt: skip
    meta = dict(model=subject.name) | ({} if other is None else dict(beside=other.name))
    return Drawing(figure, meta | dict(images=numbers), READING)


class _Stages(NamedTuple):
    """The maps that a model returns of an image."""

    model: str
    view: View
    lengths: list[Tensor]
    """Length of the feature of each position, h, w each."""


def _require_common_size(gates: list[Gate], beside: _Stages) -> None:
    wanted = {tuple(gate.after.shape) for gate in gates}
    there = {tuple(lengths.shape) for lengths in beside.lengths}
    if not wanted & there:
        own, others = (', '.join(f'{h}x{w}' for h, w in sorted(s)) for s in (wanted, there))
        raise UserError(
            f'--beside {beside.model}: of {beside.view.name} it has maps of {others}, but the '
            f'units that are drawn have {own}; name a model of the same strides and image size'
        )


@torch.no_grad()
def _stages(subject: Subject, inputs: Tensor) -> list[Tensor]:
    return [lengths_of(x) for x in subject.backbone(inputs)]


def _numbers(gate: Gate) -> dict:
    before, after = gate.contrast
    return dict(gate._asdict(), contrast_before=before, contrast_after=after)


def _shown(gates: list[Gate], names: list[str] | None) -> list[Gate]:
    if names is None:
        # A stage ends where the map gets smaller.
        return [
            gate for gate, after in zip(gates, [*gates[1:], None], strict=True)
            if after is None or after.after.shape != gate.after.shape
        ]  # fmt: skip
    known = {gate.name: gate for gate in gates}
    for name in names:
        if name not in known:
            raise UserError(f'--units {name}: not there; the units are {", ".join(known)}')
    return [known[name] for name in names]
