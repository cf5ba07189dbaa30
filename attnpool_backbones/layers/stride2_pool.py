"""Pooling that halves the sides of a map, rounded up."""

from torch import nn

_POOLINGS = {
    # Ceil mode changes nothing where the sides are even.
    'max2': lambda: nn.MaxPool2d(2, ceil_mode=True),
    'max3': lambda: nn.MaxPool2d(3, stride=2, padding=1),
    'avg2': lambda: nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
}

STRIDE2_POOLS = tuple(_POOLINGS)
"""The names that :func:`stride2_pool` knows: kind and side of the kernel."""


def stride2_pool(name: str) -> nn.Module:
    """Builds a pooling of stride 2 that gives ceil(H / 2), ceil(W / 2).

    Args:
        name: One of :data:`STRIDE2_POOLS`.
    """
    return _POOLINGS[name]()
