"""What stands on the stack for what a pickle is about to tell, and what tensors look at."""

from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from attnpool_backbones.checkpoints.errors import DamagedCheckpoint, UnsafeCheckpoint
from attnpool_backbones.checkpoints.message_texts import printable


@dataclass(eq=False)
class Storage:
    """The memory that one or more tensors of a file look at."""

    dtype: torch.dtype
    """Type of its elements, as the pickle says; ``uint8`` if it leaves that to the tensors."""
    memory: Tensor
    """Its bytes, uint8; filled when all of the pickle is read."""


class StorageSource(Protocol):
    """What knows the storages of a file."""

    def __call__(self, dtype: torch.dtype, address: tuple) -> Storage:
        """Returns the storage with this address in the file."""


@dataclass(frozen=True)
class Named:
    """What stands on the stack for a name that the pickle asks for."""

    name: str


class DtypeInFile:
    """A numpy type on its way: pickle tells its byte order after it."""

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)


class ArrayInFile:
    """A numpy array on its way: pickle tells its content after it."""

    content: np.ndarray | None = None


class BufferInFile:
    """A HistoryBuffer on its way."""

    content: HistoryBuffer | None = None


def is_storage(name: str) -> bool:
    """Tells whether a name is that of a class of storages."""
    module, _, kind = name.rpartition('.')
    return kind.endswith('Storage') and module in ('torch', 'torch.cuda', 'torch.storage')


def is_shape(value: Any) -> bool:
    """Tells whether a value is a tuple of a few numbers that are not negative."""
    return isinstance(value, tuple) and len(value) <= 64 and all(
        type(n) is int and 0 <= n < 2**62 for n in value
    )  # fmt: skip


def as_shape(value: Any) -> tuple[int, ...]:
    """Returns a shape.

    Raises:
        DamagedCheckpoint: The value is none.
    """
    if not is_shape(value):
        raise DamagedCheckpoint('broken pickle (a shape that is no tuple of numbers)')
    return value


def refuse_name(name: str, wants: str = 'wants to call') -> NoReturn:
    """Raises UnsafeCheckpoint about a name that the pickle asks for."""
    raise UnsafeCheckpoint(f'it {wants} {printable(name)}, which weights do not need')
