"""Whether numbers are finite, told exactly by their bits, at the speed of reading them.

In IEEE 754's formats the exponent stands above the fraction, and infinity and NaN have the
greatest exponent. So they are the greatest patterns among those of their sign: of all numbers read
as signed integers if they are positive, as unsigned ones if they are negative.
"""

import numpy as np
import torch
from torch import Tensor

__all__ = ['INFINITIES', 'TypedMemory', 'are_finite', 'bits_of', 'memory_of']

TypedMemory = tuple[int, torch.dtype]
"""Address of a memory, and the type of its numbers."""

INFINITIES = {
    torch.float16: (np.dtype(np.int16), 0x7C00),
    torch.bfloat16: (np.dtype(np.int16), 0x7F80),
    torch.float32: (np.dtype(np.int32), 0x7F800000),
    torch.float64: (np.dtype(np.int64), 0x7FF0000000000000),
}
"""Type of numbers -> the integers of its size, and the one that has infinity's bits."""
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_AT_ONCE = 2**17  # numbers


def memory_of(values: Tensor) -> TypedMemory:
    """Returns the memory that numbers lie in, or look at a part of."""
    return values.untyped_storage().data_ptr(), values.dtype


def bits_of(values: Tensor) -> np.ndarray:
    """Returns numbers of a type in :data:`INFINITIES`, on the CPU, as signed integers.

    Args:
        values: Of any shape; memory is shared.
    """
    return values.detach().view(_INTEGERS[values.element_size()]).numpy()


def are_finite(bits: np.ndarray, dtype: torch.dtype) -> bool:
    """Tells whether numbers are all finite.

    Args:
        bits: The numbers as signed integers, of any shape.
        dtype: Their type, one of :data:`INFINITIES`.
    """
    signed, infinity = INFINITIES[dtype]
    unsigned = np.dtype(f'u{signed.name}')
    negative_infinity = infinity + 2 ** (8 * signed.itemsize - 1)
    flat = bits.ravel('K')  # in the order of memory, without a copy where that has no gaps
    # the second look at a part finds it in the processor's cache
    parts = (flat[start : start + _AT_ONCE] for start in range(0, flat.size, _AT_ONCE))
    return all(
        part.max() < infinity and part.view(unsigned).max() < negative_infinity for part in parts
    )
