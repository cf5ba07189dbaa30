"""The names that a pickle may ask for, and what answers to each."""

import argparse
from collections.abc import Callable
from typing import Any

import torch

from attnpool_backbones.checkpoints.message_texts import printable
from attnpool_backbones.checkpoints.unpickling import (
    array_builders,
    plain_builders,
    tensor_builders,
)
from attnpool_backbones.checkpoints.unpickling.stand_ins import BufferInFile, as_shape

CALLS: dict[str, Callable[..., Any]] = {
    'collections.OrderedDict': plain_builders.ordered_dict,
    'collections.Counter': plain_builders.counter,
    'builtins.set': lambda reader, given=(): set(plain_builders.members(reader, given)),
    'builtins.frozenset': lambda reader, given=(): frozenset(plain_builders.members(reader, given)),
    'builtins.bytes': plain_builders.plain_bytes,
    'builtins.bytearray': plain_builders.byte_array,
    'builtins.complex': lambda reader, real, imaginary: complex(float(real), float(imaginary)),
    'builtins.getattr': array_builders.attribute,
    '_codecs.encode': plain_builders.encoded,
    # official checkpoints carry their command line
    'argparse.Namespace': lambda reader: argparse.Namespace(),
    array_builders.HISTORY_BUFFER: lambda reader: BufferInFile(),
    'numpy.dtype': array_builders.numpy_type,
    'torch.Size': lambda reader, size: torch.Size(as_shape(size)),
    'torch.device': lambda reader, kind, index=0: torch.device(kind, index),
    'torch._utils._rebuild_tensor': tensor_builders.tensor,
    'torch._utils._rebuild_tensor_v2': tensor_builders.tensor,
    'torch._utils._rebuild_tensor_v3': tensor_builders.tensor_of_type,
    'torch._utils._rebuild_parameter': tensor_builders.parameter,
    'torch._utils._rebuild_parameter_with_state': tensor_builders.parameter,
    'torch._tensor._rebuild_from_type_v2': tensor_builders.tensor_with_attributes,
    'torch.serialization._get_layout': lambda reader, name: printable(str(name)),
}
"""What builds a value, given the reader and the arguments in the file."""
for _function, _kind in {
    '_rebuild_sparse_tensor': 'sparse',
    '_rebuild_sparse_csr_tensor': 'sparse',
    '_rebuild_qtensor': 'quantised',
    '_rebuild_nested_tensor': 'nested',
    '_rebuild_wrapper_subclass': 'wrapped',
    '_rebuild_meta_tensor_no_storage': 'meta (empty)',
}.items():
    CALLS[f'torch._utils.{_function}'] = tensor_builders.refused(_kind)
for _module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # numpy 2 renamed it
    CALLS[f'{_module}._reconstruct'] = array_builders.new_array
    CALLS[f'{_module}.scalar'] = array_builders.scalar

MENTIONED = (
    'numpy.ndarray',
    'torch.Tensor',
    'torch.nn.parameter.Parameter',
    *array_builders.ONE_CYCLE,
    *(f'torch.per_{what}' for what in ('tensor_affine', 'tensor_symmetric', 'channel_affine',
      'channel_symmetric', 'channel_affine_float_qparams')),
)  # fmt: skip
"""Names that stand as arguments only."""
