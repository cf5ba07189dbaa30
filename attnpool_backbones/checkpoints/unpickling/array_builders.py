"""Builds arrays and numbers of numpy, and mmengine's HistoryBuffer, which holds two of them."""

from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.logging import HistoryBuffer

from attnpool_backbones.checkpoints.errors import UnsafeCheckpoint
from attnpool_backbones.checkpoints.message_texts import printable
from attnpool_backbones.checkpoints.unpickling.content import settle
from attnpool_backbones.checkpoints.unpickling.stand_ins import (
    ArrayInFile,
    DtypeInFile,
    Named,
    is_shape,
    refuse_name,
)

if TYPE_CHECKING:
    from attnpool_backbones.checkpoints.unpickling.machine import PickleReader

HISTORY_BUFFER = 'mmengine.logging.history_buffer.HistoryBuffer'
ONE_CYCLE = (
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler',
    'torch.optim.lr_scheduler.OneCycleLR',
)
"""Schedules that store the function by which they change a setting."""
_ATTRIBUTES = {
    HISTORY_BUFFER: ('min', 'max', 'current', 'mean'),
    **dict.fromkeys(ONE_CYCLE, ('_annealing_cos', '_annealing_linear')),
}
_PLAIN_KINDS = 'biufcSU'  # of numpy: no objects, no records


def array(reader: 'PickleReader', shape: Any, dtype: Any, fortran: Any, content: Any) -> np.ndarray:
    """Builds an array of plain numbers."""
    if not isinstance(dtype, DtypeInFile):
        raise UnsafeCheckpoint('it holds a numpy array that is no plain data')
    if isinstance(content, str):  # bytes of Python 2
        content = content.encode('latin1')
    if not isinstance(content, (bytes, bytearray)) or not is_shape(shape):
        raise UnsafeCheckpoint('it holds a numpy array that is no plain data')
    reader.charge(len(content))
    values = np.frombuffer(content, dtype.dtype).reshape(shape, order='F' if fortran else 'C')
    return values.astype(dtype.dtype.newbyteorder('='), order='K')


def scalar(reader: 'PickleReader', dtype: Any, content: Any = b'') -> np.generic:
    """Builds one plain number of numpy's."""
    return array(reader, (1,), dtype, False, content)[0]


def numpy_type(
    reader: 'PickleReader', code: Any, align: Any = False, copy: Any = False
) -> DtypeInFile:
    """Builds a type of plain numbers."""
    if type(code) is not str or len(code) > 8 or np.dtype(code).kind not in _PLAIN_KINDS:
        raise UnsafeCheckpoint(
            f'it holds a numpy array of type {printable(repr(code))}, which is no plain data'
        )
    return DtypeInFile(code)


def new_array(
    reader: 'PickleReader', cls: Any = None, shape: Any = (0,), code: Any = b'b'
) -> ArrayInFile:
    """Builds an array whose content comes next."""
    return ArrayInFile()


def history(reader: 'PickleReader', state: Any) -> HistoryBuffer:
    """Builds a HistoryBuffer from the state that mmengine stores."""
    values = [settle(state[key], {}, 0) for key in ('_log_history', '_count_history')]
    if any(not isinstance(v, np.ndarray) or v.dtype.kind not in 'biuf' for v in values):
        raise UnsafeCheckpoint('it holds a HistoryBuffer of something else than numbers')
    reader.charge(1000)
    buffer = HistoryBuffer(max_length=int(state['max_length']))
    # The statistics that are stored along belong to the class; this process has its own.
    buffer._log_history, buffer._count_history = values
    return buffer


def attribute(reader: 'PickleReader', owner: Any, name: Any) -> str:
    """Stands for ``getattr``, by which pickle names functions of classes; gives their name."""
    of = owner.name if isinstance(owner, Named) else type(owner).__name__
    if not isinstance(owner, Named) or name not in _ATTRIBUTES.get(of, ()):
        refuse_name(f'getattr({of}, {name!r})')
    return name
