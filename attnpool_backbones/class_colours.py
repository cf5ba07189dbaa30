"""Colours for classes that have none of their own."""

import colorsys
from functools import cache

__all__ = ['distinct_colours']


@cache
def distinct_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Returns colours that are told apart well: hues in steps of the golden ratio.

    Args:
        count: How many.
    """
    shades = [(0.55, 0.95), (0.8, 0.75), (0.9, 0.95)]
    colours = []
    for index in range(count):
        saturation, value = shades[index % len(shades)]
        rgb = colorsys.hsv_to_rgb((index * 0.61803399) % 1, saturation, value)
        colours.append(tuple(round(255 * part) for part in rgb))
    return tuple(colours)
