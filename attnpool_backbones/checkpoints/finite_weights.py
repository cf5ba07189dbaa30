"""Whether the weights of a file are numbers that a model can compute with."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import torch
from torch import Tensor

from attnpool_backbones.checkpoints.errors import CheckpointError
from attnpool_backbones.checkpoints.finite_bits import (
    INFINITIES,
    TypedMemory,
    are_finite,
    bits_of,
    memory_of,
)
from attnpool_backbones.checkpoints.message_texts import list_names
from attnpool_backbones.checkpoints.storage_bytes import MIN_PARALLEL

__all__ = ['looks_like_weight', 'require_finite_weights']

_ENDS_OF_WEIGHTS = ('weight', 'bias', 'running_mean', 'running_var')


def looks_like_weight(name: str) -> bool:
    """Tells by a name that a model computes with the tensor as floating-point numbers."""
    return name.rpartition('.')[2] in _ENDS_OF_WEIGHTS


def require_finite_weights(
    weights: Mapping[str, Tensor],
    is_weight: Callable[[str], bool] = looks_like_weight,
    finite: Collection[TypedMemory] = (),
) -> None:
    """Checks that weights are floating-point numbers, all of them finite.

    Args:
        weights: Tensors by name; those on the ``meta`` device are looked at by type only.
        is_weight: Tells which of them the model computes with as floating-point numbers. Others,
            such as counters and masks, may be of any type and infinite, but not NaN. Default: by
            their names.
        finite: Memories of which it is known, see :func:`~.reading.read_content`.

    Raises:
        CheckpointError: They are not; the message names all of them.
    """
    faults: dict[str, list[str]] = {}
    plain = {n: v for n, v in weights.items() if v.dtype in INFINITIES and v.is_cpu}
    sound = {n for n, v in plain.items() if memory_of(v) in finite}
    sound |= _finite_ones({name: v for name, v in plain.items() if name not in sound})
    for name, value in weights.items():
        if name in sound:
            continue
        fault = _fault(value, is_weight(name))
        if fault:
            faults.setdefault(fault, []).append(name)
    if faults:
        listed = '; '.join(f'{fault} in {list_names(names)}' for fault, names in faults.items())
        raise CheckpointError(f'its weights are not all finite numbers: {listed}')


def _finite_ones(values: Mapping[str, Tensor]) -> set[str]:
    """Returns the names of those whose numbers are all finite.

    By numpy: torch's threads wait for each other where other processes are busy.
    """

    def sound(names: Sequence[str]) -> list[str]:
        return [name for name in names if are_finite(bits_of(values[name]), values[name].dtype)]

    names = list(values)
    if sum(value.nbytes for value in values.values()) < MIN_PARALLEL:
        return set(sound(names))
    with ThreadPoolExecutor(2) as pool:
        return set(chain(*pool.map(sound, (names[::2], names[1::2]))))


def _fault(value: Tensor, is_weight: bool) -> str:
    """Returns what is wrong with a tensor, or an empty text."""
    if not value.is_floating_point():
        if not is_weight:
            return ''
        kind = 'complex numbers' if value.is_complex() else 'integers'
        return 'booleans' if value.dtype == torch.bool else kind
    if value.is_meta:
        return ''
    if value.element_size() == 1:  # which torch cannot compute with
        value = value.float()
    if torch.isnan(value).any():
        return 'NaN'
    return 'infinite numbers' if is_weight and torch.isinf(value).any() else ''
