"""What one position attends to, and for relative attention the static and the adaptive part."""

import argparse
import re
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from torch import Tensor

from attnpool_backbones.analysis.drawing import (
    Drawing,
    axes_grid,
    cell_side,
    heat,
    show_image,
)
from attnpool_backbones.analysis.maps import (
    Attention,
    attention_layers,
    attention_of,
    window_of,
)
from attnpool_backbones.analysis.subjects import Subject, View, load_subject, views_of
from attnpool_backbones.analysis.watching import watched
from attnpool_backbones.command_line import UserError, whole_number
from attnpool_backbones.layers.re_attention import ReAttention

__all__ = ['QueryMaps', 'add_arguments', 'draw', 'query_maps']

COLUMNS = 7
KERNEL = 'kernel of the bias'

READING = 'Bright positions are those that the marked pixel takes its new feature from.'
PARTS = (
    ' The static part is the bias alone, the same for every image, which is a convolution kernel '
    'around the query; the adaptive part is what queries and keys alone would attend to.'
)


class QueryMaps(NamedTuple):
    """Attention of one query; every map covers the whole grid and is 0 outside of the window."""

    layer: str
    cell: tuple[int, int]
    """Row and column of the query."""
    maps: Tensor
    """Maps that multiply the values, H, h, w; of mixed maps these may be negative."""
    class_token: Tensor | None
    """Weight of the class token, H; None without one."""
    static: Tensor | None
    """Softmax of the bias alone, H, h, w; a bias after the softmax as it is; None without one."""
    adaptive: Tensor | None
    """Softmax of the products of queries and keys alone, H, h, w; None without a bias."""
    kernel: Tensor | None
    """The bias by offset, H, 2h-1, 2w-1, the query in the middle, as a convolution reads it."""
    spread: dict[str, float]
    """Standard deviation over the keys, mean over heads, of both parts before the softmax."""


@torch.no_grad()
def query_maps(
    subject: Subject, inputs: Tensor, pixel: tuple[float, float], block: int = -1
) -> QueryMaps:
    """Computes what a pixel attends to.

    Args:
        subject: The model; the attention layers of its backbone are counted.
        inputs: An image 1, 3, H, W, normalised.
        pixel: Row and column of the pixel in ``inputs``.
        block: Which attention layer, from 0 on, or from the end by negative numbers.

    Raises:
        UserError: There is no self-attention in the backbone, or no such layer or pixel.
    """
    layers = attention_layers(subject.backbone)
    if not layers:
        raise UserError(
            f'{subject.name} ({type(subject.backbone).__name__}) has no self-attention, so no '
            'position has a map; CoAtNet, DeepViT, CAFormer and the hybrids of MetaFormer have'
        )
    if not -len(layers) <= block < len(layers):
        raise UserError(f'--block {block}: {subject.name} has {len(layers)} attention layers')
    if not all(0 <= p < n for p, n in zip(pixel, inputs.shape[-2:], strict=True)):
        raise UserError(f'--at: row {pixel[0]:.0f}, column {pixel[1]:.0f} is not in the image')
    name, layer = layers[block]
    found: list[QueryMaps] = []

    def look(_: str, layer: torch.nn.Module, x: Tensor, **options) -> None:
        size = tuple(x.shape[-2:])
        if isinstance(layer, ReAttention):
            stride = subject.backbone.arch.stride
            size = tuple(-(-n // stride) for n in inputs.shape[-2:])
        cell = tuple(
            min(int(p) // cell_side(n, cells), cells - 1)
            for p, n, cells in zip(pixel, inputs.shape[-2:], size, strict=True)
        )
        found.append(_of_query(name, layer, x, cell, size))

    with watched(layer, type(layer), look):
        subject.backbone(inputs)
    return found[0]


def _of_query(
    name: str, layer: torch.nn.Module, x: Tensor, cell: tuple[int, int], size: tuple[int, int]
) -> QueryMaps:
    place = (slice(0, size[0]), slice(0, size[1]))
    if layer.window is not None:
        place = tuple(window_of(p, n, layer.window) for p, n in zip(cell, size, strict=True))
    attention = attention_of(layer, x, cell, size)
    width = place[1].stop - place[1].start
    leading = attention.tokens - (place[0].stop - place[0].start) * width  # a class token or none
    token = leading + (cell[0] - place[0].start) * width + cell[1] - place[1].start
    row = slice(token, token + 1)

    def on_grid(values: Tensor) -> Tensor:
        """Puts H, N into H, h, w."""
        whole = values.new_zeros(len(values), *size)
        whole[:, place[0], place[1]] = values[:, leading:].unflatten(1, (-1, width))
        return whole

    maps = attention.mixed(row)[0, :, 0]  # H, N
    parts = _parts(attention, row)
    shown = [None if part is None else part.softmax(-1) for part in parts]
    if parts[0] is not None and attention.bias_place == 'after':
        shown[0] = parts[0]
    return QueryMaps(
        name, cell, on_grid(maps), maps[:, 0] if leading else None,
        *(None if part is None else on_grid(part) for part in shown),
        # A convolution's kernel is indexed by key - query, the table by query - key.
        None if attention.table is None else attention.table.flip(1, 2),
        {} if parts[0] is None
        else dict(static=float(parts[0].std(-1).mean()), adaptive=float(parts[1].std(-1).mean())),
    )  # fmt: skip


def _parts(attention: Attention, row: slice) -> tuple[Tensor | None, Tensor | None]:
    """Returns bias and products of one query, H, N each; None without a bias."""
    if attention.table is None:
        return None, None
    return attention.static(row)[:, 0], attention.adaptive(row)[0, :, 0]


def pixel_of(text: str) -> tuple[int, int]:
    """Reads X,Y."""
    match = re.fullmatch(r'(\d+),(\d+)', text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is not X,Y in pixels, e.g. 120,80")
    return int(match[1]), int(match[2])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    parser.add_argument(
        '--at', type=pixel_of, metavar='X,Y',
        help='the pixel that asks, in the image file (default: the middle)',
    )  # fmt: skip
    parser.add_argument(
        '--block', type=whole_number(-1, 10**6), default=-1, metavar='N',
        help='which attention layer, from 0 on, -1 the last (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--head',
        type=whole_number(0, 10**6),
        metavar='N',
        help='one head (default: the mean and all heads)',
    )


def draw(args: argparse.Namespace) -> Drawing:
    """Draws the figure."""
    subject = load_subject(args.model, args.checkpoint, args.size, args.random_weights, args.device)
    rows, numbers = [], []
    for view in views_of(subject, args.images, args.limit):
        pixel = _pixel(view, args.at)
        maps = query_maps(subject, view.inputs, pixel, args.block)
        if args.head is not None and not 0 <= args.head < len(maps.maps):
            raise UserError(f'--head {args.head}: {maps.layer} has {len(maps.maps)} heads')
        rows.append((view, pixel, maps))
        numbers.append(dict(image=view.name, pixel=pixel, **maps._asdict()))
    panels = [_panels(maps, args.head) for _, _, maps in rows]
    # rows of one query are about equally long
    columns = 1 + max(-(-len(shown) // -(-len(shown) // (COLUMNS - 1))) for shown in panels)
    lines = [-(-len(shown) // (columns - 1)) for shown in panels]
    figure, axes = axes_grid(sum(lines), columns, rows[0][0].image)
    for index, ((view, pixel, _), shown) in enumerate(zip(rows, panels, strict=True)):
        own = axes[sum(lines[:index]) :][: lines[index]]
        show_image(own[0, 0], view.image, view.name)
        own[0, 0].plot(pixel[1], pixel[0], marker='+', color='cyan', markersize=10)
        for cell, (title, values) in zip(own[:, 1:].flat, shown.items(), strict=False):
            if title == KERNEL:
                _draw_kernel(cell, values)
            else:
                heat(cell, view.image, values, view.padded, title)
                cell.plot(pixel[1], pixel[0], marker='+', color='cyan', markersize=8)
    has_parts = rows[0][2].static is not None
    return Drawing(figure, dict(model=subject.name, queries=numbers), READING + PARTS * has_parts)


def _pixel(view: View, at: tuple[int, int] | None) -> tuple[float, float]:
    """Returns row and column in what the model sees."""
    height, width = view.image.shape[:2]
    if at is None:
        return height // 2, width // 2
    row, column = at[1] * view.scale[0], at[0] * view.scale[1]
    if row >= height or column >= width:
        raise UserError(
            f'--at {at[0]},{at[1]} is not in {view.name}, which has '
            f'{width / view.scale[1]:.0f} x {height / view.scale[0]:.0f} pixels'
        )
    return row, column


def _panels(maps: QueryMaps, head: int | None) -> dict[str, Tensor]:
    """Names what is drawn of a query."""

    def pick(values: Tensor) -> Tensor:
        return values.mean(0) if head is None else values[head]

    whose = 'mean of heads' if head is None else f'head {head}'
    panels = {f'{maps.layer}\n{whose}': pick(maps.maps)}
    if maps.static is not None:
        panels['static part'] = pick(maps.static)
        panels['adaptive part'] = pick(maps.adaptive)
        panels[KERNEL] = pick(maps.kernel)
    if head is None:
        panels |= {f'head {h}': values for h, values in enumerate(maps.maps[:12])}
    return panels


def _draw_kernel(axes: Axes, values: Tensor) -> None:
    height, width = values.shape
    extent = (-width / 2, width / 2, height / 2, -height / 2)
    axes.axis('on')
    axes.imshow(values.float().cpu().numpy(), cmap='viridis', extent=extent)
    axes.set_title(KERNEL, fontsize=8)
    axes.tick_params(labelsize=6)
