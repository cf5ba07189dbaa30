"""Attention collapse: how alike the maps of blocks and of heads are (DeepViT, arXiv 2103.11886).

The similarity of two maps is that of the paper's eq. 2: the cosine of their columns, which tell how
much a token contributes to each output, as a mean over columns, heads and images. Sums run over a
few rows of a few maps at a time, so that memory is linear in the tokens.
"""

import argparse
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from torch import Tensor, nn

from attnpool_backbones.analysis.drawing import Drawing, heat
from attnpool_backbones.analysis.maps import (
    ATTENTION_LAYERS,
    Attention,
    attention_layers,
    attention_of,
)
from attnpool_backbones.analysis.subjects import Subject, View, load_subject, views_of
from attnpool_backbones.analysis.watching import watched
from attnpool_backbones.command_line import UserError
from attnpool_backbones.process_memory import return_free_memory

__all__ = ['Collapse', 'add_arguments', 'collapse_of', 'draw', 'measure_collapse']

LAGS = (1, 2, 3)
CHUNK_BYTES = 16 << 20
"""Of the rows of one layer's maps that are held at a time; a few layers are."""
EPS = 1e-8
"""Smallest length of a column, as torch's cosine similarity has it."""

READING = (
    'Lines near 1: a block attends to what the blocks before it attended to, and adds little '
    '(attention collapse); a block counts as similar when it is more so to the one before than the '
    'threshold. Heads that differ (low lines below) are what re-attention mixes new maps from.'
)


@dataclass
class Collapse:
    """Similarities of the maps of consecutive layers of one shape."""

    layers: list[str]
    adjacent: dict[int, list[float]]
    """Distance k -> mean cosine of the maps of layers p and p + k, for each p."""
    share: dict[int, list[float]]
    """Distance k -> share of the columns whose cosine is above the threshold, for each p."""
    heads: list[float]
    """Mean cosine of two heads of a layer, for each layer; empty with one head."""
    head_share: list[float]
    """Share of columns and pairs of heads whose cosine is above the threshold of heads."""

    def similar_blocks(self, threshold: float) -> int:
        """Returns how many layers are more similar to the one before than a threshold."""
        return sum(value > threshold for value in self.adjacent[1])


def measure_collapse(
    attentions: Sequence[tuple[str, Attention]], mixed: bool, threshold: float = 0.8,
    head_threshold: float = 0.5, lags: Sequence[int] = LAGS, chunk_bytes: int = CHUNK_BYTES,
) -> Collapse:  # fmt: skip
    """Compares the maps of layers of one shape.

    Args:
        attentions: Name and attention of each layer, in order; B, H and N are equal.
        mixed: Whether the maps that multiply the values are compared, or the softmax maps.
        threshold: Of two blocks.
        head_threshold: Of two heads.
        lags: Distances k of the blocks that are compared.
        chunk_bytes: Of the rows of one layer's maps that are held at a time.
    """
    first = attentions[0][1]
    batch, heads, tokens = first.q.shape[:3]
    rows = max(1, min(tokens, chunk_bytes // (4 * batch * heads * tokens)))
    pairs = {
        (p, k): torch.zeros(batch, heads, tokens)
        for p in range(len(attentions)) for k in lags if p + k < len(attentions)
    }  # fmt: skip
    across = [torch.zeros(batch, heads, heads, tokens) for _ in attentions]
    for start in range(0, tokens, rows):
        chunk = slice(start, min(start + rows, tokens))
        kept: deque[Tensor] = deque(maxlen=max(lags) + 1)
        for p, (_, attention) in enumerate(attentions):
            maps = attention.mixed(chunk) if mixed else attention.softmax(chunk)
            kept.append(maps.float().cpu())  # B, H, R, N
            for k in lags:
                if k < len(kept):
                    pairs[p - k, k] += _column_products(kept[-1], kept[-1 - k])
            for one in range(heads):
                own = kept[-1][:, one : one + 1]
                across[p][:, one, one:] += _column_products(own, kept[-1][:, one:])
    lengths = [dots.diagonal(dim1=1, dim2=2).mT.sqrt() for dots in across]  # B, H, N each
    cosines = {
        (p, k): dot / (lengths[p] * lengths[p + k]).clamp_min(EPS) for (p, k), dot in pairs.items()
    }
    upper = torch.triu_indices(heads, heads, 1)
    between = [
        (dots / (n[:, :, None] * n[:, None]).clamp_min(EPS))[:, upper[0], upper[1]]
        for dots, n in zip(across, lengths, strict=True)
    ]
    return Collapse(
        [name for name, _ in attentions],
        _by_lag(lags, {at: float(c.mean()) for at, c in cosines.items()}),
        _by_lag(lags, {at: float((c > threshold).float().mean()) for at, c in cosines.items()}),
        [float(c.mean()) for c in between] if heads > 1 else [],
        [float((c > head_threshold).float().mean()) for c in between] if heads > 1 else [],
    )


def _column_products(a: Tensor, b: Tensor) -> Tensor:
    """Sums a * b, B, H, R, N, over the rows R."""
    return (a * b).sum(2)


def _by_lag(lags: Sequence[int], values: dict[tuple[int, int], float]) -> dict[int, list[float]]:
    return {k: [v for (_, lag), v in values.items() if lag == k] for k in lags}


@torch.no_grad()
def attentions_of(backbone: nn.Module, inputs: Tensor) -> list[list[tuple[str, Attention]]]:
    """Runs images through a backbone and returns its attention, grouped by the shape of the maps.

    Queries, keys and values are kept, no maps. Layers that attend in windows are left out.
    """
    found: list[tuple[str, Attention]] = []

    def look(name: str, layer: nn.Module, x: Tensor, **options) -> None:
        if layer.window is None:
            found.append((name, attention_of(layer, x)))

    with watched(backbone, ATTENTION_LAYERS, look):
        backbone(inputs)
    return_free_memory()  # what the maps of the trunk took
    return [list(group) for _, group in groupby(found, lambda at: at[1].q.shape[:3])]


@torch.no_grad()
def features_of(attention: Attention, mixed: bool, chunk_bytes: int = CHUNK_BYTES) -> Tensor:
    """Returns the maps times the values, B, H, N, d, a few rows at a time."""
    batch, heads, tokens = attention.q.shape[:3]
    rows = max(1, min(tokens, chunk_bytes // (4 * batch * heads * tokens)))
    parts = []
    for start in range(0, tokens, rows):
        chunk = slice(start, min(start + rows, tokens))
        maps = attention.mixed(chunk) if mixed else attention.softmax(chunk)
        parts.append(maps.to(attention.v.dtype) @ attention.v)
    return torch.cat(parts, dim=2)


def compare_features(
    attentions: Sequence[Attention], mixed: bool
) -> tuple[list[float], dict[str, Tensor]]:
    """Compares the maps times the values of adjacent layers, two of which are held at a time.

    Args:
        attentions: Of layers of one shape, in order.
        mixed: As :func:`features_of` takes it.

    Returns:
        The mean cosine of the features of adjacent layers; and their lengths, N, as a mean over the
        heads of the first image, in the ``first``, ``middle`` and ``last`` layer.
    """
    places = dict(first=0, middle=len(attentions) // 2, last=len(attentions) - 1)
    similar, lengths, before = [], {}, None
    for p, attention in enumerate(attentions):
        features = features_of(attention, mixed)  # B, H, N, d
        if before is not None:
            similar.append(float(torch.cosine_similarity(before, features, dim=-1).mean()))
        for place in (place for place, at in places.items() if at == p):
            lengths[place] = features[0].norm(dim=-1).mean(0)
        before = features
    return similar, {place: lengths[place] for place in places}


def collapse_of(
    subject: Subject, inputs: Tensor, threshold: float = 0.8, head_threshold: float = 0.5
) -> list[dict]:
    """Measures a backbone on images.

    Args:
        subject: The model.
        inputs: Images B, 3, H, W, normalised.
        threshold: Of two blocks.
        head_threshold: Of two heads.

    Returns:
        For each run of at least two layers of one shape: ``softmax``, ``mixed`` (None where no
        layer mixes) and ``features``, a dict of the similarity of the features of adjacent layers
        with plain and with mixed maps, and their ``first``, ``middle`` and ``last`` lengths.

    Raises:
        UserError: There are no two such layers.
    """
    if not attention_layers(subject.backbone):
        raise UserError(
            f'{subject.name} ({type(subject.backbone).__name__}) has no self-attention whose maps '
            'could collapse; DeepViT, CoAtNet, CAFormer and the hybrids of MetaFormer have'
        )
    groups = [group for group in attentions_of(subject.backbone, inputs) if len(group) > 1]
    if not groups:
        raise UserError(
            f'{subject.name} has no two attention layers in a row whose maps have one shape '
            '(layers with windows do not count)'
        )
    return [_of_group(group, threshold, head_threshold) for group in groups]


def _of_group(group: list[tuple[str, Attention]], threshold: float, head_threshold: float) -> dict:
    mixes = any(attention.mixes for _, attention in group)
    features, pictures = {}, {}
    for form, mixed in (('plain', False), ('mixed', True))[: 1 + mixes]:
        features[form], pictures[form] = compare_features([a for _, a in group], mixed)
    options = dict(threshold=threshold, head_threshold=head_threshold)
    return dict(
        softmax=measure_collapse(group, False, **options),
        mixed=measure_collapse(group, True, **options) if mixes else None,
        features=features,
        lengths=pictures,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    parser.add_argument(
        '--threshold', type=float, default=0.8, metavar='COSINE',
        help='from which on two blocks are similar (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--head-threshold', type=float, default=0.5, metavar='COSINE',
        help='from which on two heads are similar (default: %(default)s)',
    )  # fmt: skip


def draw(args: argparse.Namespace) -> Drawing:
    """Draws the figure; numbers of several images are averaged."""
    subject = load_subject(args.model, args.checkpoint, args.size, args.random_weights, args.device)
    views = list(views_of(subject, args.images, args.limit))
    runs = [
        collapse_of(subject, view.inputs, args.threshold, args.head_threshold) for view in views
    ]
    numbers = [_mean([_plain(run[g], args.threshold) for run in runs]) for g in range(len(runs[0]))]
    figure = Figure(figsize=(13, 5.6 * len(numbers)), layout='constrained')
    grid = figure.add_gridspec(2 * len(numbers), 12)
    for g, entry in enumerate(numbers):
        blocks = figure.add_subplot(grid[2 * g, :4])
        share = figure.add_subplot(grid[2 * g, 4:8])
        heads = figure.add_subplot(grid[2 * g, 8:])
        for form, style in (('softmax', '-'), ('mixed', '--')):
            if entry[form] is None:
                continue
            for k, values in entry[form]['adjacent'].items():
                colour = f'C{k - 1}'
                depth = range(k, k + len(values))
                blocks.plot(depth, values, style, color=colour, label=f'{form}, {k} apart')
                share.plot(depth, entry[form]['share'][k], style, color=colour)
            if entry[form]['heads']:
                heads.plot(entry[form]['heads'], style, color='C0', label=f'{form}: mean cosine')
                heads.plot(entry[form]['head_share'], style, color='C1',
                           label=f'{form}: share above {args.head_threshold}')  # fmt: skip
        similar = ', '.join(
            f'{form} {entry[form]["similar_blocks"]:g}'
            for form in ('softmax', 'mixed') if entry[form] is not None
        )  # fmt: skip
        count = len(entry['softmax']['layers'])
        blocks.axhline(args.threshold, color='grey', linewidth=0.8)
        blocks.set_title(
            f'similarity of maps to earlier blocks\nsimilar of {count}: {similar}', fontsize=9
        )
        blocks.legend(fontsize=7)
        share.set_title(f'share of columns above {args.threshold}', fontsize=9)
        heads.set_title('similarity of the heads of a block', fontsize=9)
        if heads.lines:
            heads.legend(fontsize=7)
        for axes in (blocks, share, heads):
            axes.set_ylim(min(0, axes.get_ylim()[0]), 1.02)
            axes.set_xlabel('block', fontsize=8)
        _features(figure, grid, g, views[0], runs[0][g])
    return Drawing(
        figure,
        dict(model=subject.name, images=[view.name for view in views], groups=numbers),
        READING,
    )


def _features(figure: Figure, grid: GridSpec, g: int, view: View, entry: dict) -> None:
    """Draws the lengths of the features of three blocks, with plain and with mixed maps."""
    panels = [
        (form, at, values) for form, all_ in entry['lengths'].items() for at, values in all_.items()
    ]
    tokens = len(panels[0][2])
    size = _grid_of(tokens, view.padded)
    for column, (form, at, values) in enumerate(panels):
        axes = figure.add_subplot(grid[2 * g + 1, 2 * column : 2 * column + 2])
        cells = values[tokens - size[0] * size[1] :].unflatten(0, size)
        heat(axes, view.image, cells, view.padded, f'{form} maps x V\n{at} block')


def _grid_of(tokens: int, padded: Sequence[int]) -> tuple[int, int]:
    """Finds the grid of patch tokens: that of a power of two as stride, with a class token or not.

    Raises:
        ValueError: There is none.
    """
    for stride in (4, 8, 16, 32, 64):
        size = tuple(-(-n // stride) for n in padded)
        if size[0] * size[1] in (tokens, tokens - 1):
            return size
    raise ValueError(f'{tokens} tokens are no grid of {padded[0]} x {padded[1]} pixels')


def _plain(entry: dict, threshold: float) -> dict:
    """Turns the result of a group into dicts and lists."""
    plain = dict(features=entry['features'])
    for form in ('softmax', 'mixed'):
        found = entry[form]
        plain[form] = None if found is None else dict(
            vars(found), similar_blocks=found.similar_blocks(threshold)
        )  # fmt: skip
    return plain


def _mean(values: list) -> Any:
    """Averages numbers of equal structures; texts are those of the first."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [_mean(list(entries)) for entries in zip(*values, strict=True)]
    if isinstance(first, (int, float)):
        return sum(values) / len(values)
    return first
