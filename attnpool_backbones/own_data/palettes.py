"""Masks with a palette: whether their values or their colours are what classes are known by."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from attnpool_backbones.datasets.bit_depth import IGNORED
from attnpool_backbones.datasets.findings import Problem
from attnpool_backbones.own_data.class_lists import ClassList
from attnpool_backbones.own_data.folder import open_picture
from attnpool_backbones.own_data.labels import problem

__all__ = ['colour_numbers', 'differing_palettes', 'have_own_orders', 'is_shade', 'palette_of']


def palette_of(path: Path, used: Iterable[int]) -> dict[int, int] | None:
    """Returns the colours 0xRRGGBB of the values of a mask with a palette, None for another."""
    with open_picture(path) as picture:
        if picture.mode != 'P':
            return None
        parts = picture.getpalette('RGB')
    parts += [0] * (3 * 256 - len(parts))
    return {v: int.from_bytes(bytes(parts[3 * v : 3 * v + 3]), 'big') for v in used}


def have_own_orders(
    palettes: Mapping[str, Mapping[int, int]], listed: ClassList | None, ignored: Sequence[int]
) -> bool:
    """Whether palettes are of listed colours in an order of their own, so that values say nothing.

    Tools that save few colours number them file by file.
    """
    if listed is None or listed.colours is None or not palettes:
        return False
    colours = colour_numbers(listed)
    used = {entry for palette in palettes.values() for entry in palette.items()}
    for value, colour in used:
        is_ignored = value in ignored or (value == IGNORED and colour not in colours)
        if is_ignored == (colour in colours):
            return False
    if all(is_shade(colour, 'colours') for colour in colours):
        return True  # masks without a palette have these shades
    places = {*enumerate(colours)}
    return any(colour in colours and (value, colour) not in places for value, colour in used)


def differing_palettes(
    palettes: Mapping[str, Mapping[int, int]], ignored: Sequence[int]
) -> Iterator[Problem]:
    """Yields masks that have another colour for a value than a mask before."""
    first: dict[int, tuple[int, str]] = {}
    for mask, palette in palettes.items():
        for value, colour in palette.items():
            known, other = first.setdefault(value, (colour, mask))
            if colour != known and value not in (IGNORED, *ignored):
                words = f'{value} is #{colour:06x}, but #{known:06x} in {other}'
                yield problem(
                    'mask with another palette',
                    mask,
                    f'{words}; write "name,red,green,blue" lines into classes.txt, or save masks '
                    'of ids without a palette',
                )
                break


def colour_numbers(listed: ClassList) -> list[int]:
    """Returns the colours of a list as numbers 0xRRGGBB."""
    return [(red << 16) | (green << 8) | blue for red, green, blue in listed.colours]


def is_shade(value: int, kind: str) -> bool:
    """Whether a pixel is a shade of grey, as an id below 256 or as a colour 0xRRGGBB."""
    return value < 256 if kind == 'ids' else value == (value & 255) * 0x010101
