"""What ``torch.load(weights_only=True)`` may build while it reads a training checkpoint.

For torch a checkpoint is data, not a program: every class or function it names has to be on a
list. mmengine's own checkpoints name numpy's unpickling functions, ``HistoryBuffer`` and
``getattr``. Listing the originals would give the program back: ``getattr`` reaches anything, and
numpy's dtypes accept any state, which can turn plain bytes into object pointers. So every name is
answered by a stand-in that does only what an honest checkpoint asks for and refuses the rest.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

__all__ = ['register_safe_globals']

STATISTICS_METHODS = ('min', 'max', 'current', 'mean')
# bool, signed and unsigned integers, floats, complex, bytes and text: no objects, no records
PLAIN_DTYPE_KINDS = 'biufcSU'


class StoredDtype:
    """Stands in for ``numpy.dtype``: a plain element type and its byte order, nothing else.

    Args:
        code (str): Type code such as ``'f8'``.
        align (bool): Part of numpy's format, without meaning for plain types.
        copy (bool): Part of numpy's format, without meaning for plain types.

    Raises:
        ValueError: If the type is not a plain one (objects, records, dates).
    """

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if type(code) is not str or np.dtype(code).kind not in PLAIN_DTYPE_KINDS:
            raise ValueError(
                f'refused to load a numpy array of type {code!r}, '
                f'only the kinds {PLAIN_DTYPE_KINDS!r} are plain data'
            )
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        """Takes the byte order, the only part of numpy's state that plain types use."""
        byte_order = state[1]
        if byte_order not in ('<', '>', '=', '|'):
            raise ValueError(f'unknown byte order {byte_order!r} in a numpy type')
        self.dtype = self.dtype.newbyteorder(byte_order)


class StoredArray(np.ndarray):
    """Stands in for ``numpy.ndarray``; is stored again as an ordinary array."""

    def __new__(cls) -> 'StoredArray':
        return super().__new__(cls, (0,), np.uint8)

    def __setstate__(self, state: tuple) -> None:
        """Fills the array once.

        Args:
            state (tuple): Format version, shape, ``StoredDtype``, Fortran order, bytes.

        Raises:
            ValueError: If the array has its content already. Other objects may share that memory.
            TypeError: If the element type or the content is of another kind.
        """
        _, shape, stored, fortran_order, content = state
        if self.size:
            raise ValueError('refused to fill a numpy array twice')
        if type(stored) is not StoredDtype or type(content) is not bytes:
            raise TypeError('refused to load a numpy array that is not plain data')
        super().__setstate__((1, shape, stored.dtype, fortran_order, content))

    def __reduce__(self) -> tuple:
        return np.array(self, subok=False).__reduce__()


def stored_array(cls: type, shape: tuple, code: bytes) -> StoredArray:
    """Stands in for ``numpy._core.multiarray._reconstruct``: an empty array to be filled."""
    if cls is not StoredArray:
        raise TypeError(f'refused to load a numpy array of class {cls!r}')
    return StoredArray()


def stored_scalar(stored: StoredDtype, content: bytes) -> np.generic:
    """Stands in for ``numpy._core.multiarray.scalar``: one plain number."""
    if type(stored) is not StoredDtype or type(content) is not bytes:
        raise TypeError('refused to load a numpy scalar that is not plain data')
    return np.frombuffer(content, stored.dtype, count=1)[0]


class StoredHistoryBuffer(HistoryBuffer):
    """Stands in for ``HistoryBuffer`` and turns into one when its content arrives."""

    def __init__(self) -> None:
        # mmengine's constructor takes any sequence; a checkpoint fills the buffer by state only.
        pass

    def __setstate__(self, state: dict) -> None:
        """Takes the two histories and their limit.

        The table of statistics methods that mmengine stores along is ignored: it belongs to the
        class, and this process has its own.
        """
        self.__dict__.update(
            max_length=int(state['max_length']),
            _log_history=np.array(state['_log_history'], subok=False),
            _count_history=np.array(state['_count_history'], subok=False),
        )
        self._set_default_statistics()
        self.__class__ = HistoryBuffer


def stored_getattr(owner: type, name: str) -> str:
    """Stands in for ``getattr``, by which pickle names the statistics of ``HistoryBuffer``.

    Args:
        owner (type): The class, which has to be the stand-in of ``HistoryBuffer``.
        name (str): The method.

    Returns:
        str: The name only; ``StoredHistoryBuffer`` has no use for the method.

    Raises:
        ValueError: For any other attribute.
    """
    if owner is not StoredHistoryBuffer or name not in STATISTICS_METHODS:
        raise ValueError(
            f'refused to load a checkpoint that looks up attribute {name!r} of '
            f'{owner!r}; only {", ".join(STATISTICS_METHODS)} of HistoryBuffer are '
            'part of a training checkpoint'
        )
    return name


def stored_bytes() -> bytes:
    """Stands in for ``bytes``, by which pickle names the empty string of bytes."""
    return b''


SAFE_GLOBALS: tuple[tuple[Callable[..., Any], str], ...] = (
    (StoredHistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (stored_getattr, 'builtins.getattr'),
    (stored_bytes, 'builtins.bytes'),
    (StoredDtype, 'numpy.dtype'),
    (StoredArray, 'numpy.ndarray'),
    # numpy 2 renamed the module; checkpoints of both exist
    (stored_array, 'numpy._core.multiarray._reconstruct'),
    (stored_array, 'numpy.core.multiarray._reconstruct'),
    (stored_scalar, 'numpy._core.multiarray.scalar'),
    (stored_scalar, 'numpy.core.multiarray.scalar'),
    # official checkpoints carry their command line; a Namespace only holds attributes
    (argparse.Namespace, 'argparse.Namespace'),
)


def register_safe_globals() -> None:
    """Lets ``torch.load`` read mmengine's checkpoints and ``argparse.Namespace``, and no more.

    May be called any number of times.
    """
    torch.serialization.add_safe_globals(list(SAFE_GLOBALS))
