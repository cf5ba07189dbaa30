"""Whether the weights of a file are numbers that a model can compute with."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from attnpool_backbones.checkpoints.errors import CheckpointError
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
    finite: Collection[int] = (),
) -> None:
    """Checks that weights are floating-point numbers, all of them finite.

    Args:
        weights: Tensors by name; those on the ``meta`` device are looked at by type only.
        is_weight: Tells which of them the model computes with as floating-point numbers. Others,
            such as counters and masks, may be of any type and infinite, but not NaN. Default: by
            their names.
        finite: Addresses of memories of which it is known, see :func:`~.reading.read_content`.

    Raises:
        CheckpointError: They are not; the message names all of them.
    """
    faults: dict[str, list[str]] = {}
    plain = {n: v for n, v in weights.items() if v.dtype == torch.float32 and v.is_cpu}
    known = {n for n, v in plain.items() if v.untyped_storage().data_ptr() in finite}
    others = [value for name, value in plain.items() if name not in known]
    sound = plain if _are_finite(others) else known
    for name, value in weights.items():
        if name in sound:
            continue
        fault = _fault(value, is_weight(name))
        if fault:
            faults.setdefault(fault, []).append(name)
    if faults:
        listed = '; '.join(f'{fault} in {list_names(names)}' for fault, names in faults.items())
        raise CheckpointError(f'its weights are not all finite numbers: {listed}')


def _are_finite(values: Sequence[Tensor]) -> bool:
    """Tells whether all numbers are finite; False also if their sum overflows.

    One pass, by numpy: torch's threads wait for each other where other processes are busy.
    """

    def sums(share: Sequence[Tensor]) -> list[np.floating]:
        with np.errstate(over='ignore', invalid='ignore'):
            return [value.detach().numpy().sum() for value in share]

    if sum(value.nbytes for value in values) < MIN_PARALLEL:
        return bool(np.isfinite(sums(values)).all())
    with ThreadPoolExecutor(2) as pool:
        return all(np.isfinite(part).all() for part in pool.map(sums, (values[::2], values[1::2])))


def _fault(value: Tensor, is_weight: bool) -> str:
    """Returns what is wrong with a tensor, or an empty text."""
    if not value.is_floating_point():
        if not is_weight:
            return ''
        kind = 'complex numbers' if value.is_complex() else 'integers'
        return 'booleans' if value.dtype == torch.bool else kind
    if value.is_meta or not value.numel():
        return ''
    if value.element_size() < 4:
        # Half precision: sums of it overflow, and one byte has no sums at all.
        value = value.float()
    if torch.isfinite(value.sum()):  # one pass; almost always the last
        return ''
    if torch.isnan(value).any():
        return 'NaN'
    return 'infinite numbers' if is_weight and torch.isinf(value).any() else ''
