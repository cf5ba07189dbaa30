"""The golden fixtures: rebuilds the weights with which ``tests/data/*.npz`` were made."""

import json
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / 'data'


@cache
def load_golden(name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of ``tests/data/<name>.npz``."""
    with np.load(DATA / f'{name}.npz') as arrays:
        return dict(arrays)


def fill_(state_dict: Mapping[str, Tensor]) -> None:
    """Sets every floating-point entry, in place, to values that its name and shape determine."""
    for name, tensor in state_dict.items():
        if tensor.is_floating_point():
            tensor.copy_(_values(name, tensor))


def _values(name: str, tensor: Tensor) -> Tensor:
    # Computed in float64 in this order of operations: the fixtures' weights to the last bit.
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    noise = torch.as_tensor(generator.standard_normal(tuple(tensor.shape)), dtype=torch.float64)
    if tensor.dim() == 0:
        noise = noise.float()
    if name.endswith('running_var'):
        return 1 + 0.1 * noise.abs()
    if name.endswith(('running_mean', 'bias')):
        return 0.1 * noise
    if tensor.dim() <= 1:
        return 1 + 0.1 * noise
    return noise / tensor[0].numel() ** 0.5


def official_state_dict(arrays: Mapping[str, np.ndarray], kind: str = '') -> dict[str, Tensor]:
    """Returns the official state dict of a fixture.

    Args:
        arrays: Of the fixture, as :func:`load_golden` returns them.
        kind: Prefix of the arrays that list it: ``''`` for ``keys`` and ``shapes``, ``'cls_'`` for
            ``cls_keys`` and ``cls_shapes``, ``'<unit>.'`` in ``sge_units``.
    """
    shapes = json.loads(str(arrays[f'{kind}shapes']))
    state_dict = {
        str(name): torch.zeros(shapes[name], dtype=_dtype(str(name)))
        for name in arrays[f'{kind}keys']
    }
    fill_(state_dict)
    for name in arrays:
        # DeepViT's fixtures hold the running statistics of their attention norms.
        if name.startswith(('bn_mean_', 'bn_var_')):
            _, statistic, block = name.split('_')
            target = state_dict[f'blocks.{block}.attn.var_norm.running_{statistic}']
            target.copy_(torch.from_numpy(arrays[name]))
    return state_dict


def _dtype(name: str) -> torch.dtype:
    return torch.int64 if name.endswith('num_batches_tracked') else torch.float32
