"""Attention within windows of a map, and which blocks of a stage keep the whole map."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


def in_windows(x: Tensor, side: int, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """Attends within the windows of a map, without shift (as arXiv 2210.01820 and 2203.16527 do).

    Windows at the right and bottom border are as small as what is left, so nothing is padded and
    nothing masked.

    Args:
        x: Map B, H, W, ...
        side: Of the windows, in positions.
        attend: Called once for all windows of one size, n, h, w, ...; returns n, h, w, C.

    Returns:
        B, H, W, C.
    """
    strips = []
    for rows, height in _cuts(x.shape[1], side):
        parts = [
            _attend_in_part(x[:, rows, columns], height, width, attend)
            for columns, width in _cuts(x.shape[2], side)
        ]
        strips.append(torch.cat(parts, dim=2))
    return torch.cat(strips, dim=1)


def _cuts(length: int, side: int) -> Iterator[tuple[slice, int]]:
    """Yields what whole windows cover of an axis, and the rest, with their windows' length."""
    covered = length - length % side
    if covered:
        yield slice(0, covered), side
    if covered < length:
        yield slice(covered, length), length - covered


def _attend_in_part(
    x: Tensor, height: int, width: int, attend: Callable[[Tensor], Tensor]
) -> Tensor:
    """Attends within the windows, all of one size, that make up a part B, H, W, ..."""
    windows = x.unflatten(2, (-1, width)).unflatten(1, (-1, height))  # B, m, h, n, w, ...
    batch, m, _, n = windows.shape[:4]
    y = attend(windows.transpose(2, 3).flatten(0, 2))  # B*m*n, h, w, C
    return y.unflatten(0, (batch, m, n)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def check_windows(
    windows: Sequence[int | None] | None, attends: Sequence[bool], global_every: int, family: str
) -> tuple[int | None, ...]:
    """Checks the window sides of a backbone's stages.

    Args:
        windows: A side in positions or None for each stage; None: no windows at all.
        attends: Whether each stage has attention.
        global_every: See :func:`window_of_block`.
        family: Name of the backbone, for messages.

    Returns:
        One entry a stage.

    Raises:
        ValueError: Another number of entries, a side below 1 or in a stage without attention, or
            global blocks without windows or a negative number.
    """
    sides = (None,) * len(attends) if windows is None else tuple(windows)
    pairs = zip(sides, attends, strict=False)
    if len(sides) != len(attends) or any(s is not None and (s < 1 or not has) for s, has in pairs):
        stages = ', '.join(str(i) for i, has in enumerate(attends) if has) or 'none'
        raise ValueError(
            f'windows={windows} of {family} must have one entry for each of {len(attends)} '
            f'stages: None, or from 1 on in those with attention ({stages})'
        )
    check_global_blocks(global_every, any(sides), family)
    return sides


def check_global_blocks(global_every: int, has_windows: bool, family: str) -> None:
    """Raises ValueError for a negative number, or for global blocks where there are no windows.

    Args:
        global_every: See :func:`window_of_block`.
        has_windows: Whether there are any.
        family: Name of the backbone.
    """
    if global_every < 0 or global_every and not has_windows:
        raise ValueError(
            f'global_every={global_every} of {family} must be 0 (none) or from 1 on, with windows'
        )


def window_of_block(side: int | None, block: int, global_every: int) -> int | None:
    """Returns the window of a block, None for the whole map.

    Args:
        side: Of the stage's windows, None for none.
        block: Number of the block among those of its stage with attention, from 0.
        global_every: Every so many blocks the last one attends over the whole map; 0: none does.
    """
    return None if global_every and (block + 1) % global_every == 0 else side
