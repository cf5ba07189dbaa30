"""A figure with its numbers, and what all figures draw alike."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from attnpool_backbones.atomic_files import write_atomically

__all__ = [
    'Drawing', 'axes_grid', 'cell_side', 'coloured', 'heat', 'plain', 'save', 'show_image',
    'write_figure',
]  # fmt: skip

DPI = 110
FLAT = 1e-5
"""Range of a map over its maximum up to which it counts as rounding of a constant."""
DIGITS = 7
"""Significant ones of the numbers that are written."""


@dataclass(frozen=True)
class Drawing:
    """A picture, the numbers it shows, and how to read it."""

    figure: Figure
    numbers: dict[str, Any]
    """Of dicts, lists, arrays, tensors, numbers and texts."""
    reading: str
    """One line for whoever has not read the paper."""


def save(drawing: Drawing, folder: str | Path, name: str) -> list[Path]:
    """Writes a figure.

    Args:
        drawing: The figure.
        folder: Made if it is missing.
        name: Of the files, without ending.

    Returns:
        ``NAME.png`` and ``NAME.json``, whose entry ``reading`` is the line. A number that is not
        finite is ``null`` there.
    """
    picture, numbers = Path(folder, f'{name}.png'), Path(folder, f'{name}.json')
    write_figure(drawing.figure, picture)
    text = json.dumps(plain(dict(reading=drawing.reading, **drawing.numbers)), indent=1)
    write_atomically(text.encode(), numbers)
    return [picture, numbers]


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG file, whole or not at all.

    Args:
        figure: The figure.
        path: The file; its folder is made if it is missing.
    """
    buffer = BytesIO()
    figure.savefig(buffer, format='png', dpi=DPI)
    write_atomically(buffer.getvalue(), path)


def plain(value: Any) -> Any:
    """Returns numbers, arrays and tensors in dicts and lists as JSON holds them.

    Floats have seven digits; one that is not finite is None.
    """
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, Tensor):
        return plain(value.detach().cpu().numpy())
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f'{value:.{DIGITS}g}') if math.isfinite(value) else None  # JSON has no other
    return value


def axes_grid(rows: int, columns: int, image: np.ndarray) -> tuple[Figure, np.ndarray]:
    """Returns a figure and its axes, rows x columns, without ticks, for pictures as high as one.

    Args:
        rows: Rows of axes.
        columns: Columns of axes.
        image: H, W, 3; tells the shape of an axis, whose width is fixed.
    """
    height = min(4.0, 2.4 * image.shape[0] / image.shape[1])
    figure = Figure(figsize=(2.5 * columns, (height + 0.45) * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    for cell in axes.flat:
        cell.axis('off')
    return figure, axes


def cell_side(pixels: int, cells: int) -> int:
    """Returns the pixels of a cell: the power of two s with ``ceil(pixels / s) == cells``."""
    return 1 << max(0, -(-pixels // cells) - 1).bit_length()


def show_image(axes: Axes, image: np.ndarray, title: str = '', grey: bool = False) -> None:
    """Shows an image H, W, 3 uint8 without ticks."""
    if grey:
        axes.imshow(image.mean(-1), cmap='gray', vmin=0, vmax=255)
    else:
        axes.imshow(image)
    _frame(axes, image, title)


def heat(
    axes: Axes, image: np.ndarray, cells: Tensor, padded: Sequence[int], title: str = ''
) -> None:  # fmt: skip
    """Draws a map of cells over a grey image.

    Its colours reach over the values of its part that lies on the image; a map of one value is
    dark, and its title says so.

    Args:
        axes: Where.
        image: H, W, 3 uint8.
        cells: Map h, w.
        padded: Height and width in pixels of what the model saw; the image is its upper left.
        title: Above it.
    """
    show_image(axes, image, grey=True)
    extent, inside = _placed(cells.shape[-2:], padded, image)
    values = cells.detach().float().cpu().numpy()
    part = values[: inside[0], : inside[1]]
    low, high = float(part.min()), float(part.max())
    if high - low <= FLAT * abs(high):
        high, title = low + 1, f'{title}\n(the same everywhere)'.lstrip()
    axes.imshow(
        values, cmap='inferno', vmin=low, vmax=high, alpha=0.65,
        extent=extent, interpolation='bilinear',
    )  # fmt: skip
    _frame(axes, image, title)


def coloured(
    axes: Axes, image: np.ndarray, maps: Tensor, colours: Sequence, padded: Sequence[int]
) -> None:  # fmt: skip
    """Draws several maps over one image, each position in the colour of its strongest map.

    Each map is divided by its maximum first; the colour is as dense as the winning value.

    Args:
        axes: Where.
        image: H, W, 3 uint8.
        maps: K, h, w, from 0 on.
        colours: K colours, red, green and blue from 0 to 1.
        padded: As :func:`heat` takes it.
    """
    show_image(axes, image, grey=True)
    extent, _ = _placed(maps.shape[-2:], padded, image)
    strength = (maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)).float().cpu()
    # Finer than the cells, so that borders between classes are not stairs.
    fine = torch.nn.functional.interpolate(strength[None], scale_factor=8, mode='bilinear')[0]
    value, winner = fine.max(0)
    rgb = np.asarray(colours, dtype=np.float32)[winner.numpy()]
    rgba = np.concatenate([rgb, 0.85 * value.clamp(0, 1).numpy()[..., None]], axis=-1)
    axes.imshow(rgba, extent=extent, interpolation='bilinear')
    _frame(axes, image)


def _placed(
    grid: Sequence[int], padded: Sequence[int], image: np.ndarray
) -> tuple[tuple[float, ...], tuple[int, int]]:
    """Returns where a grid of cells lies in pixels, and how many cells lie on the image."""
    height, width = (cell_side(p, n) for p, n in zip(padded, grid, strict=True))
    extent = (-0.5, grid[1] * width - 0.5, grid[0] * height - 0.5, -0.5)
    return extent, (-(-image.shape[0] // height), -(-image.shape[1] // width))


def _frame(axes: Axes, image: np.ndarray, title: str = '') -> None:
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    if title:
        axes.set_title(title, fontsize=8)
