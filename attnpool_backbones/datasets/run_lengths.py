"""Run-length encoded masks of COCO files.

pycocotools reads past the end of runs that do not fill a mask, and returns what it finds there, so
they are checked before it sees them.
"""

from typing import Any

__all__ = ['run_length_fault']

BITS = 5
"""Of a length in one character; a sixth bit says that more follow."""
FIRST = ord('0')


def run_length_fault(counts: Any, pixels: int) -> str:
    """Tells what is wrong with the runs of a mask.

    Args:
        counts: The lengths of the runs, as a list or in COCO's compressed form.
        pixels: How many the mask has.

    Returns:
        The message, empty if nothing is wrong.
    """
    if isinstance(counts, str):
        try:
            counts = _decompressed(counts)
        except ValueError as error:
            return f'counts cannot be decoded: {error}'
    if not isinstance(counts, list):
        return f'counts are of type {type(counts).__name__}, not a list or a text'
    wrong = [length for length in counts if type(length) is not int or length < 0]
    if wrong:
        return f'{wrong[0]!r} in counts, not a number from 0 on'
    total = sum(counts)
    return '' if total == pixels else f'counts of {total} pixels in all, not {pixels}'


def _decompressed(text: str) -> list[int]:
    """Reads lengths of five bits a character, lowest first, signed; from the fourth on differences.

    A difference is taken to the length before the last, as that is of the same colour.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - FIRST
        if not 0 <= bits < 2 << BITS:
            raise ValueError(f'{character!r} is none of the characters')
        value |= (bits & 31) << shift
        shift += BITS
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError('they end within a number')
    return lengths
