"""Builds plain dense tensors, which look at storages of the file; refuses all others by name."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from attnpool_backbones.checkpoints.errors import CheckpointError, DamagedCheckpoint
from attnpool_backbones.checkpoints.message_texts import printable
from attnpool_backbones.checkpoints.unpickling.stand_ins import Named, Storage, is_shape

if TYPE_CHECKING:
    from attnpool_backbones.checkpoints.unpickling.machine import PickleReader

STORAGE_DTYPES = {
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
    'ComplexDoubleStorage': torch.complex128,
    'ComplexFloatStorage': torch.complex64,
    'UntypedStorage': torch.uint8,
}
"""Types of the elements of torch's classes of storages."""
DTYPES = {f'torch.{n}': v for n, v in vars(torch).items() if isinstance(v, torch.dtype)}
"""Types that a pickle may name."""
_UNPLAIN_DTYPES = tuple(v for n, v in DTYPES.items() if n.startswith('torch.q')) + tuple(
    v for n, v in DTYPES.items() if n.startswith('torch.bits')
)


def tensor(
    reader: 'PickleReader',
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    *rest: Any,
    dtype: Any = None,
) -> Tensor:
    """Builds a tensor that looks at a storage.

    Raises:
        DamagedCheckpoint: It would look beyond the storage's end.
        CheckpointError: Its numbers are not those of the storage.
    """
    if any(rest[2:]):  # after requires_grad and hooks: what is to be done with the numbers
        refuse_tensor(reader, 'negated or conjugated')
    if not isinstance(storage, Storage) or not is_shape(size) or not is_shape(stride):
        raise DamagedCheckpoint('broken pickle (a tensor without storage or shape)')
    dtype = dtype or storage.dtype
    if dtype in _UNPLAIN_DTYPES or len(size) != len(stride):
        refuse_tensor(reader, 'quantised')
    reader.charge(200)
    count = 1
    for length in size:
        count *= length
    reader.charge(count * dtype.itemsize)
    end = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1
    memory = storage.memory
    if offset < 0 or (count and end * dtype.itemsize > memory.numel()):
        raise DamagedCheckpoint(
            f'the tensor {name_of_next(reader)} of {count} numbers looks beyond the end of its '
            f'{memory.numel()} bytes'
        )
    if memory.numel() % dtype.itemsize:
        raise DamagedCheckpoint('a storage has no whole number of elements')
    return memory.view(dtype).as_strided(size, stride, offset)


def tensor_of_type(
    reader: 'PickleReader', storage: Any, offset: Any, size: Any, stride: Any, *rest: Any
) -> Tensor:
    """Builds a tensor that knows its type itself."""
    dtype = rest[2] if len(rest) > 2 else None
    if not isinstance(dtype, torch.dtype):
        raise DamagedCheckpoint('broken pickle (a tensor without type)')
    return tensor(reader, storage, offset, size, stride, *rest[:2], *rest[3:], dtype=dtype)


def parameter(reader: 'PickleReader', data: Any, *_: Any) -> Tensor:
    """Builds a parameter, as the tensor it is."""
    if not isinstance(data, Tensor):
        raise DamagedCheckpoint('broken pickle (a parameter without tensor)')
    return data


def tensor_with_attributes(
    reader: 'PickleReader', named: Any, cls: Any, arguments: Any, _: Any
) -> Tensor:
    """Builds a tensor, without the attributes it had."""
    if cls not in (Named('torch.Tensor'), Named('torch.nn.parameter.Parameter')):
        name = cls.name if isinstance(cls, Named) else type(cls).__name__
        raise CheckpointError(f'it holds tensors of class {printable(name)}')
    return parameter(reader, reader.call(named, arguments))


def refuse_tensor(reader: 'PickleReader', kind: str) -> NoReturn:
    """Raises CheckpointError about a kind of tensors that no model here takes."""
    raise CheckpointError(
        f'{name_of_next(reader)} is a {kind} tensor, which no model here takes; save plain '
        'dense tensors'
    )


def refused(kind: str) -> Callable[..., NoReturn]:
    """Returns what answers to a name that builds tensors of a kind that is refused."""
    return lambda reader, *_: refuse_tensor(reader, kind)


def name_of_next(reader: 'PickleReader') -> str:
    """Returns the key under which the value that is being built will stand, for messages."""
    texts = [x for stack in (*reader.marks, reader.stack) for x in stack if isinstance(x, str)]
    return printable(texts[-1]) if texts else 'a value'
