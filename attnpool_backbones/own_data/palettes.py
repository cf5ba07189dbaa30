"""Masks with a palette: whether their values or their colours are what classes are known by."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.bit_depth import IGNORED
from attnpool_backbones.datasets.findings import Problem
from attnpool_backbones.own_data.class_lists import ClassList
from attnpool_backbones.own_data.folder import open_picture
from attnpool_backbones.own_data.labels import problem

__all__ = [
    'colour_numbers',
    'differing_palettes',
    'have_own_orders',
    'ignored_colours',
    'is_shade',
    'palette_of',
]


def palette_of(path: Path, used: Iterable[int]) -> dict[int, int] | None:
    """Returns the colours 0xRRGGBB of the values of a mask with a palette, None for another.

    The mask was read before, which limits its size.
    """
    with open_picture(path, math.inf) as picture:
        if picture.mode != 'P':
            return None
        parts = picture.getpalette('RGB')
    parts += [0] * (3 * 256 - len(parts))
    return {v: int.from_bytes(bytes(parts[3 * v : 3 * v + 3]), 'big') for v in used}


def have_own_orders(
    palettes: Mapping[str, Mapping[int, int]], listed: ClassList | None, ignored: Sequence[int]
) -> bool:
    """Whether palettes are of listed colours in an order of their own, so that values say nothing.

    Tools that save few colours number them file by file. Some colours may be in no list; where
    most are in none, the palettes have nothing to do with the list.
    """
    if listed is None or listed.colours is None or not palettes:
        return False
    colours = colour_numbers(listed)
    used = _used(palettes, colours, ignored)
    found = {colour for _, colour in used if colour in colours}
    unlisted = {colour for _, colour in used} - found
    if not unlisted and all(is_shade(colour, 'colours') for colour in colours):
        return True  # masks without a palette have these shades
    places = {*enumerate(colours)}
    is_other_order = any(c in found and (value, c) not in places for value, c in used)
    return is_other_order and len(found) > len(unlisted)


def _used(
    palettes: Mapping[str, Mapping[int, int]], colours: Collection[int], ignored: Sequence[int]
) -> set[tuple[int, int]]:
    """Returns values with their colours, but for those that are ignored."""
    entries = {entry for palette in palettes.values() for entry in palette.items()}
    return {
        (value, colour)
        for value, colour in entries
        if value not in ignored and (value != IGNORED or colour in colours)
    }


def ignored_colours(
    palettes: Mapping[str, Mapping[int, int]], listed: ClassList, ignored: Sequence[int]
) -> set[int]:
    """Returns the colours of the ignored values, of 255 only where it is no class.

    Raises:
        UserError: If a colour is that of an ignored value in one mask, and of another value in one.
    """
    colours = colour_numbers(listed)
    used = _used(palettes, colours, ignored)
    away = {entry for palette in palettes.values() for entry in palette.items()} - used
    kept = {colour for _, colour in used if colour in colours}
    for value, colour in sorted(away):
        if colour in kept:
            raise UserError(
                f'--ignore-label {value}: the palettes of the masks differ, #{colour:06x} is a '
                'class under another value; call a class ignore in classes.txt instead'
            )
    return {colour for _, colour in away}


def differing_palettes(
    palettes: Mapping[str, Mapping[int, int]], listed: ClassList | None, ignored: Sequence[int]
) -> Iterator[Problem]:
    """Yields masks that have another colour for a value than a mask before.

    There are none where a list says the values of the classes.
    """
    if listed is not None and listed.values is not None:
        return
    advice = (
        'write a line for each class into classes.txt or the file of --classes, '
        '"name,red,green,blue", or "name value" if the values are right'
    )
    if listed is not None and listed.colours is not None:
        colours = colour_numbers(listed)
        unlisted = sorted({c for _, c in _used(palettes, colours, ignored) if c not in colours})
        words = ', '.join(f'#{colour:06x}' for colour in unlisted[:10])
        advice = f'the list of classes has no {words}; add them, or write "name value" lines'
    first: dict[int, tuple[int, str]] = {}
    for mask, palette in palettes.items():
        for value, colour in palette.items():
            known, other = first.setdefault(value, (colour, mask))
            if colour != known and value not in (IGNORED, *ignored):
                words = f'{value} is #{colour:06x}, but #{known:06x} in {other}'
                yield problem(
                    'mask with another palette',
                    mask,
                    f'{words}; {advice}, or save masks of ids without a palette',
                )
                break


def colour_numbers(listed: ClassList) -> list[int]:
    """Returns the colours of a list as numbers 0xRRGGBB."""
    return [(red << 16) | (green << 8) | blue for red, green, blue in listed.colours]


def is_shade(value: int, kind: str) -> bool:
    """Whether a pixel is a shade of grey, as an id below 256 or as a colour 0xRRGGBB."""
    return value < 256 if kind == 'ids' else value == (value & 255) * 0x010101
