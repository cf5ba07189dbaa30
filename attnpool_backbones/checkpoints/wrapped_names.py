"""What wrappers and whole models put into the names of a backbone's weights."""

from collections import Counter
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from attnpool_backbones.checkpoints.errors import CheckpointError
from attnpool_backbones.checkpoints.known_formats import recognise
from attnpool_backbones.checkpoints.message_texts import list_names

__all__ = [
    'MODULE',
    'WRAPPERS',
    'below',
    'find_prefix',
    'renamed',
    'short_name',
    'without_wrappers',
]

MODULE = 'module'
"""What DistributedDataParallel and averages put into names; rarely, a layer's own name."""
WRAPPERS = ('_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module')
"""What torch.compile, sharding and activation checkpointing put into names."""
_DEEPEST_PREFIX = 3  # parts
_TRIED_PREFIXES = 50  # those of most names


def short_name(name: str, wrappers: Collection[str]) -> str:
    """Returns a name without the parts of wrappers, the last part excepted."""
    *parts, last = name.split('.')
    return '.'.join([*(part for part in parts if part not in wrappers), last])


def without_wrappers(state_dict: Mapping[str, Tensor], *, module: bool = True) -> dict[str, Tensor]:
    """Returns weights by names without the parts that wrappers put into them, at any place.

    Args:
        state_dict: The weights.
        module: Whether ``module`` is such a part.

    Raises:
        CheckpointError: Two names become one, and their numbers differ.
    """
    wrappers = (*WRAPPERS, MODULE) if module else WRAPPERS
    return renamed(state_dict, {name: short_name(name, wrappers) for name in state_dict})


def renamed(state_dict: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Returns weights by other names.

    Args:
        state_dict: The weights.
        names: The new name of every one.

    Raises:
        CheckpointError: Two names become one, and their numbers differ.
    """
    values: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for old, value in state_dict.items():
        new = names[old]
        if new in values and not _equal(values[new], value):
            raise CheckpointError(
                f'it has {list_names([origin[new], old])} with different numbers, which are the '
                'same parameter within wrappers; keep one of them'
            )
        values[new], origin[new] = value, old
    return values


def _equal(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return first.is_meta or second.is_meta or torch.equal(first, second)


def below(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns the weights whose names begin with a prefix, without it."""
    return {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}


def find_prefix(state_dict: Mapping[str, Tensor]) -> str:
    """Returns the prefix after which the names are those of a known backbone.

    Args:
        state_dict: Weights of which no name is known.

    Returns:
        For example ``model.`` as Lightning puts it; empty if there is none.

    Raises:
        CheckpointError: There are several, for instance a teacher and a student.
    """
    prefixes: Counter[str] = Counter()
    for name in state_dict:
        parts = name.split('.', _DEEPEST_PREFIX)
        prefixes.update('.'.join(parts[:depth]) + '.' for depth in range(1, len(parts)))
    found = [prefix for prefix, _ in prefixes.most_common(_TRIED_PREFIXES)
             if recognise(below(state_dict, prefix)) is not None]  # fmt: skip
    if len(found) > 1:
        options = ', '.join(f"init_cfg=dict(prefix='{prefix}')" for prefix in found)
        raise CheckpointError(f'it holds {len(found)} backbones; choose one by {options}')
    return found[0] if found else ''
