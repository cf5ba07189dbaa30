"""Where attention pooling looks: one map of the class token, or one of each class (2112.13692)."""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from attnpool_backbones.analysis.drawing import Drawing, axes_grid, coloured, heat, show_image
from attnpool_backbones.analysis.subjects import Subject, View, load_subject, views_of
from attnpool_backbones.backbones.pooled import PooledBackbone
from attnpool_backbones.command_line import UserError, whole_number
from attnpool_backbones.dense_models.image_tags import covered
from attnpool_backbones.heads import AttentionPoolingHead

__all__ = ['Pooled', 'add_arguments', 'draw', 'pool']

ONE_TOKEN = (
    'Bright positions are those that the class token takes its image feature from; the weights of '
    'one image and of the class token itself sum to 1.'
)
PER_CLASS = (
    'Each position has the colour of the class whose token looks there most, relative to where it '
    'looks most of all; where that is little, the grey image shows through.'
)


class Pooled(NamedTuple):
    """Attention pooling of images."""

    maps: Tensor
    """B, K, h, w: K = 1, or the number of classes."""
    logits: Tensor | None
    """B, classes; None where nothing classifies."""
    per_class: bool
    """Whether each class has a map, be there only one class; else it is that of the class token."""


@torch.no_grad()
def pool(subject: Subject, inputs: Tensor, size: Sequence[int] | None = None) -> Pooled:
    """Pools images by the attention pooling that a model has.

    Args:
        subject: A model with an image-level head, e.g. by ``WithImageHead``, or whose backbone
            pools.
        inputs: Images B, 3, H, W, normalised.
        size: Height and width of the images in pixels without the padding that a detector or
            segmentor adds, which its head does not see. Default: there is none.

    Raises:
        UserError: It has no attention pooling.
    """
    image_head = getattr(subject.model, 'image_head', None)
    if image_head is not None:
        last, whole = subject.backbone(inputs)[-1], inputs.shape[-2:]
        height, width = covered(last, size or whole, whole)
        logits, maps = image_head(last[..., :height, :width], return_maps=True)
        # class activation maps have negative parts; padding gets no weight
        missing = (0, last.shape[3] - width, 0, last.shape[2] - height)
        per_class = image_head.use_grad_cam or getattr(image_head.pooling, 'per_class', True)
        return Pooled(functional.pad(maps.clamp(min=0), missing), logits, per_class)
    heads = [m for m in subject.model.modules() if isinstance(m, AttentionPoolingHead)]
    if heads:
        logits, maps = heads[0](subject.backbone(inputs), return_maps=True)
        return Pooled(maps, logits, heads[0].per_class)
    backbone = subject.backbone
    if not isinstance(backbone, PooledBackbone) or backbone.pool is None:
        raise UserError(
            f'{subject.name} has no attention pooling: its image feature is no weighted sum of '
            'positions. PatchConvNet and AttnResNet have it with pooling=True and weights of it, '
            'detectors and segmentors by type=WithImageHead'
        )
    tokens, maps = backbone.forward_pooled(inputs)
    per_class = tokens.shape[1] > 1
    weight, bias = _classifier(subject.head, tokens.shape[-1])
    if weight is None:
        logits = None
    elif per_class:
        logits = torch.einsum('bkc,kc->bk', tokens, weight) + bias
    else:
        logits = tokens[:, 0] @ weight.T + bias
    return Pooled(maps, logits, per_class)


def _classifier(state: dict[str, Tensor], channels: int) -> tuple[Tensor | None, Tensor | None]:
    """Finds weight K, C and bias K of a classifier: one layer, or one layer a class."""
    if 'head.weight' in state:
        return state['head.weight'], state['head.bias']
    count = sum(name.endswith('.weight') for name in state)
    if count and 'head.0.weight' in state and state['head.0.weight'].shape == (1, channels):
        parts = [(state[f'head.{k}.weight'], state[f'head.{k}.bias']) for k in range(count)]
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))
    return None, None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    parser.add_argument(
        '--classes', nargs='+', metavar='CLASS',
        help='numbers or names of the classes that are drawn (default: the --top surest)',
    )  # fmt: skip
    parser.add_argument(
        '--top',
        type=whole_number(1, 1000),
        default=3,
        metavar='N',
        help='how many classes (default: %(default)s)',
    )


def draw(args: argparse.Namespace) -> Drawing:
    """Draws the figure."""
    subject = load_subject(args.model, args.checkpoint, args.size, args.random_weights, args.device)
    views = list(views_of(subject, args.images, args.limit))
    pooled = [pool(subject, view.inputs, view.image.shape[:2]) for view in views]
    if not pooled[0].per_class:
        return _one_token(subject, views, pooled)
    return _per_class(subject, views, pooled, args.classes, args.top)


def _one_token(subject: Subject, views: Sequence[View], pooled: Sequence[Pooled]) -> Drawing:
    columns = min(4, len(views))
    figure, axes = axes_grid(-(-len(views) // columns), 2 * columns, views[0].image)
    numbers = []
    for index, (view, (maps, *_)) in enumerate(zip(views, pooled, strict=True)):
        row, column = divmod(index, columns)
        weights = maps[0, 0]
        show_image(axes[row, 2 * column], view.image, view.name)
        heat(axes[row, 2 * column + 1], view.image, weights, view.padded)
        numbers.append(
            dict(image=view.name, map=weights, class_token=1 - float(weights.sum()),
                 effective_positions=effective_positions(weights))
        )  # fmt: skip
    return Drawing(figure, dict(model=subject.name, images=numbers), ONE_TOKEN)


def effective_positions(weights: Tensor) -> float:
    """Returns exp of the entropy of a map: over how many positions it is spread; 0 if all are 0."""
    if not weights.any():
        return 0.0
    share = weights.flatten() / weights.sum()
    return float(torch.special.entr(share).sum().exp())


def _per_class(
    subject: Subject, views: Sequence[View], pooled: Sequence[Pooled],
    names: Sequence[str] | None, top: int,
) -> Drawing:  # fmt: skip
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    wanted = None if names is None else [_class_of(subject, n, pooled[0].maps) for n in names]
    if wanted is None and pooled[0].logits is None:
        raise UserError(
            f'{subject.name} has one map per class but no classifier that would tell which classes '
            'to draw: name them by --classes'
        )
    palette = colormaps['tab10'].colors
    columns = 2 + max(1, len(wanted) if wanted else min(top, pooled[0].maps.shape[1]))
    figure, axes = axes_grid(len(views), columns, views[0].image)
    numbers = []
    for row, view, (maps, logits, _) in zip(axes, views, pooled, strict=True):
        chosen = wanted
        if chosen is None:
            chosen = logits[0].topk(min(top, maps.shape[1])).indices.tolist()
        colours = [palette[index % len(palette)] for index in range(len(chosen))]
        show_image(row[0], view.image, view.name)
        coloured(row[1], view.image, maps[0, chosen], colours, view.padded)
        titles = [_title(subject, k, None if logits is None else logits[0]) for k in chosen]
        row[1].legend(
            handles=[Patch(color=c, label=t) for c, t in zip(colours, titles, strict=True)],
            fontsize=6, loc='lower left', framealpha=0.7,
        )  # fmt: skip
        entries = []
        for cell, k, title in zip(row[2:], chosen, titles, strict=False):
            heat(cell, view.image, maps[0, k], view.padded, title)
            entry = dict(number=k, name=_name(subject, k), map=maps[0, k],
                         effective_positions=effective_positions(maps[0, k]))  # fmt: skip
            if logits is not None:
                entry['logit'] = float(logits[0, k])
            entries.append(entry)
        numbers.append(dict(image=view.name, classes=entries))
    return Drawing(figure, dict(model=subject.name, images=numbers), PER_CLASS)


def _class_of(subject: Subject, name: str, maps: Tensor) -> int:
    if name in subject.classes:
        return subject.classes.index(name)
    if name.isdigit() and int(name) < maps.shape[1]:
        return int(name)
    there = ', '.join(subject.classes) or f'0 to {maps.shape[1] - 1}'
    raise UserError(f'--classes {name}: no class of {subject.name}, which has {there}')


def _name(subject: Subject, k: int) -> str:
    return subject.classes[k] if k < len(subject.classes) else f'class {k}'


def _title(subject: Subject, k: int, logits: Tensor | None) -> str:
    return _name(subject, k) if logits is None else f'{_name(subject, k)}: {float(logits[k]):.1f}'
