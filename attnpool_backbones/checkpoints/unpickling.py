"""Reads the pickle inside of a checkpoint as data: builds what training files hold, calls nothing.

A pickle is a program for a small stack machine. This one has the machine's words for plain data
and tensors; every name the pickle asks for is looked up in one table of functions of this module,
so no word of a file ever reaches Python's own objects. What it builds is bounded: in the number of
steps, in bytes beside those of the file, in depth, and in how large it would be written out.
"""

import _compat_pickle  # names of Python 2, in which protocol 2 is written to this day
import argparse
import pickle
import pickletools
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn, Protocol

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from attnpool_backbones.checkpoints.errors import (
    CheckpointError,
    DamagedCheckpoint,
    UnsafeCheckpoint,
)
from attnpool_backbones.checkpoints.message_texts import printable

__all__ = ['MAX_DEPTH', 'MAX_STEPS', 'PickleReader', 'Storage', 'StorageSource']

MAX_STEPS = 4_000_000
"""Steps of one pickle, and objects that its content would have if it were written out."""
MAX_DEPTH = 100
"""Levels of containers inside of each other."""
COPIES = 16
"""How many times the size of a file its tensors and arrays may have together, shared ones counted
each time; honest files share a few."""
SPARE_BYTES = 64 * 2**20
"""What any file may have beyond that."""
MAX_INTEGER = 2**256
BYTES_AN_ENTRY = 100
"""About what an entry of a container takes."""

_STATISTICS = ('min', 'max', 'current', 'mean')  # of HistoryBuffer
_PLAIN_KINDS = 'biufcSU'  # of numpy: no objects, no records
_SAFE_INTEGERS = 2**61 - 1  # smaller ones have hash values of their own
_MAX_KEY_ITEMS = 8

_STORAGE_DTYPES = {
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
_DTYPES = {f'torch.{n}': v for n, v in vars(torch).items() if isinstance(v, torch.dtype)}


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
class _Named:
    """What stands on the stack for a name that the pickle asks for."""

    name: str


class _DtypeInFile:
    """A numpy type on its way: pickle tells its byte order after it."""

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)


class _ArrayInFile:
    """A numpy array on its way: pickle tells its content after it."""

    content: np.ndarray | None = None


class _BufferInFile:
    """A HistoryBuffer on its way."""

    content: HistoryBuffer | None = None


class PickleReader:
    """Reads one pickle.

    Args:
        file: Where it begins; read to its end.
        find_storage: Called for each storage that tensors look at.
        size: Bytes of the whole checkpoint, which bound what it may grow to.
    """

    def __init__(self, file: BinaryIO, find_storage: StorageSource, size: int) -> None:
        self.file = file
        self.find_storage = find_storage
        self.size = size
        self.steps_left = MAX_STEPS
        self.bytes_left = COPIES * size + SPARE_BYTES
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def read(self) -> Any:
        """Returns the content.

        Raises:
            UnsafeCheckpoint: It asks for something that weights do not need, or for too much.
            CheckpointError: It holds tensors of a kind that no model here takes.
            DamagedCheckpoint: It is no pickle, or not a whole one.
        """
        words, read = _WORDS, self.file.read
        try:
            for _ in range(MAX_STEPS):
                word = read(1)
                if word == b'.':
                    return self.finished(self.stack.pop())
                action = words.get(word)
                if action is None:
                    self.refuse_word(word)
                action(self)
        except CheckpointError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DamagedCheckpoint(f'broken pickle ({printable(str(error))})') from None
        except (struct.error, RuntimeError, MemoryError, RecursionError) as error:
            raise DamagedCheckpoint(printable(str(error) or type(error).__name__)) from None
        raise UnsafeCheckpoint(f'it wants to build more than {MAX_STEPS} objects')

    def refuse_word(self, word: bytes) -> NoReturn:
        """Raises the error about a byte that is no word of this machine."""
        if not word:
            raise DamagedCheckpoint('its pickle has no end')
        if word in _WORDS_OF_PICKLE:
            name = _WORDS_OF_PICKLE[word]
            raise UnsafeCheckpoint(f'its pickle has the word {name}, which no checkpoint needs')
        raise DamagedCheckpoint(f'broken pickle (byte {word[0]})')

    # ------------------------------------------------------------------ limits

    def step(self, count: int = 1) -> None:
        """Counts steps.

        Raises:
            UnsafeCheckpoint: There were too many.
        """
        self.steps_left -= count
        if self.steps_left < 0:
            raise UnsafeCheckpoint(f'it wants to build more than {MAX_STEPS} objects')

    def charge(self, size: int) -> None:
        """Counts bytes that the content needs.

        Raises:
            UnsafeCheckpoint: They are far more than the file has.
        """
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise UnsafeCheckpoint(
                f'it wants to grow to more than {COPIES} times its size in memory'
            )

    def finished(self, content: Any) -> Any:
        """Returns the content with all objects in place of those on their way, measured.

        Raises:
            UnsafeCheckpoint: It holds something else than data, is nested too deep, or its parts
                stand in so many places that it would be huge written out.
        """
        sizes: dict[int, int] = {}
        open_ones: set[int] = set()

        def measure(value: Any, depth: int) -> int:
            if isinstance(value, (Tensor, np.ndarray, np.generic, torch.dtype, torch.device)):
                return 1
            if isinstance(value, int) and abs(value) > MAX_INTEGER:
                raise UnsafeCheckpoint('it holds a number of hundreds of digits')
            if value is None or isinstance(value, (bool, int, float, complex, HistoryBuffer)):
                return 1
            if isinstance(value, (str, bytes, bytearray)):
                return 1 + len(value) // BYTES_AN_ENTRY
            if isinstance(value, _Named):
                refuse_name(value.name, 'holds')
            if id(value) in sizes:
                return sizes[id(value)]
            if id(value) in open_ones:
                raise UnsafeCheckpoint('it holds a container that contains itself')
            if depth > MAX_DEPTH:
                raise UnsafeCheckpoint(f'it is nested more than {MAX_DEPTH} levels deep')
            open_ones.add(id(value))
            total = 1
            for part in parts_of(value):
                total += measure(part, depth + 1)
                if total > MAX_STEPS:
                    raise UnsafeCheckpoint(
                        f'it refers to its parts so often that it stands for more than {MAX_STEPS} '
                        'objects'
                    )
            open_ones.remove(id(value))
            sizes[id(value)] = total
            return total

        content = settle(content, {}, 0)
        measure(content, 0)
        return content

    # ------------------------------------------------------------------ the stack machine

    def take(self, size: int) -> bytes:
        """Returns the next bytes.

        Raises:
            DamagedCheckpoint: There are not as many.
        """
        content = self.file.read(size) if size <= self.size else b''
        if len(content) != size:
            raise DamagedCheckpoint('its pickle is cut off')
        return content

    def number(self, form: str) -> Any:
        """Returns the next number, of a form of ``struct``."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        """Returns the next line."""
        return self.file.readline().rstrip(b'\n').decode('utf8')

    def mark(self) -> None:
        """Begins the items of a container."""
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        """Returns what was pushed since the last mark, and takes it off."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def push_name(self, name: str) -> None:
        """Pushes what a name stands for here.

        Raises:
            UnsafeCheckpoint: For nothing.
        """
        if name in _DTYPES:
            self.stack.append(_DTYPES[name])
            return
        if name not in _CALLS and name not in _MENTIONED and not is_storage(name):
            refuse_name(name)
        self.stack.append(_Named(name))

    def push_global(self) -> None:
        """Pushes what two lines name."""
        self.push_name(self.name_of_lines())

    def refuse_instance(self) -> None:
        """Refuses to call what two lines name."""
        refuse_name(self.name_of_lines())

    def name_of_lines(self) -> str:
        """Returns what two lines name, module and attribute, as it is called today."""
        module, attribute = self.line(), self.line()
        module, attribute = _compat_pickle.NAME_MAPPING.get(
            (module, attribute), (_compat_pickle.IMPORT_MAPPING.get(module, module), attribute)
        )
        return f'{module}.{attribute}'

    def push_stack_name(self) -> None:
        """Pushes what the two words on the stack name."""
        attribute, module = self.stack.pop(), self.stack.pop()
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise DamagedCheckpoint('broken pickle (a name that is no text)')
        self.push_name(f'{module}.{attribute}')

    def call(self, named: Any, arguments: Any) -> Any:
        """Returns what a name builds from arguments."""
        if not isinstance(named, _Named) or named.name not in _CALLS:
            name = named.name if isinstance(named, _Named) else type(named).__name__
            refuse_name(name)
        if not isinstance(arguments, tuple):
            raise DamagedCheckpoint('broken pickle (arguments that are no tuple)')
        try:
            return _CALLS[named.name](self, *arguments)
        except TypeError:
            raise UnsafeCheckpoint(
                f'it wants to call {named.name} with arguments that no checkpoint has'
            ) from None

    def reduce(self) -> None:
        """Replaces a name and its arguments by what it builds."""
        arguments = self.stack.pop()
        named = self.stack.pop()
        self.stack.append(self.call(named, arguments))

    def new_object_with_keywords(self) -> None:
        """Like :meth:`reduce`, with named arguments, of which no checkpoint has any."""
        if self.stack.pop():
            raise UnsafeCheckpoint('its pickle passes named arguments, which no checkpoint needs')
        self.reduce()

    def build(self) -> None:
        """Gives an object its state."""
        state = self.stack.pop()
        value = self.stack[-1]
        if isinstance(value, OrderedDict):
            metadata = state.get('_metadata') if isinstance(state, dict) else None
            if isinstance(metadata, dict):
                value._metadata = metadata
        elif isinstance(value, argparse.Namespace):
            self.charge(BYTES_AN_ENTRY * len(state))
            for key in state:
                if type(key) is not str:
                    raise DamagedCheckpoint('broken pickle (an attribute that is no text)')
            vars(value).update(state)
        elif isinstance(value, _DtypeInFile):
            if state[1] not in ('<', '>', '=', '|') or any(x is not None for x in state[2:5]):
                raise UnsafeCheckpoint('it holds a numpy type that is no plain number')
            value.dtype = value.dtype.newbyteorder(state[1])
        elif isinstance(value, _ArrayInFile):
            _, shape, dtype, fortran, content = state
            if value.content is not None:
                raise UnsafeCheckpoint('it fills a numpy array twice')
            value.content = self.array(shape, dtype, fortran, content)
        elif isinstance(value, _BufferInFile):
            value.content = self.history(state)
        elif isinstance(value, Tensor) and not isinstance(state, Tensor):
            pass  # attributes of a parameter: of no use to a model
        else:
            refuse_name(type(value).__name__, 'sets the state of a')

    def find(self) -> None:
        """Replaces an address by the storage it tells."""
        address = self.stack.pop()
        if not isinstance(address, tuple) or len(address) < 5 or address[0] != 'storage':
            raise UnsafeCheckpoint('it refers to something else than storages of tensors')
        named = address[1]
        kind = named.name.rpartition('.')[2] if isinstance(named, _Named) else ''
        if kind.startswith('Q') and is_storage(named.name):
            self.stack.append(named)  # the tensor that looks at it will be refused by its name
            return
        if kind not in _STORAGE_DTYPES:
            raise CheckpointError(f'it holds tensors of storage {printable(kind or repr(named))}')
        self.stack.append(self.find_storage(_STORAGE_DTYPES[kind], address[2:]))

    # ------------------------------------------------------------------ containers

    def add_items(self, items: list[Any]) -> None:
        """Adds items to the list on the stack."""
        target = self.stack[-1]
        if type(target) is not list:
            raise DamagedCheckpoint('broken pickle (items for something that is no list)')
        target.extend(items)

    def add_entries(self, items: list[Any]) -> None:
        """Adds keys and values to the dict on the stack."""
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict, Counter) or len(items) % 2:
            raise DamagedCheckpoint('broken pickle (entries for something that is no dict)')
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.check_key(key)
            target[key] = value

    def add_members(self, items: list[Any]) -> None:
        """Adds members to the set on the stack."""
        target = self.stack[-1]
        if type(target) is not set:
            raise DamagedCheckpoint('broken pickle (members for something that is no set)')
        for item in items:
            self.check_key(item)
            target.add(item)

    def check_key(self, key: Any) -> None:
        """Checks that a key is plain and quick to look up.

        Raises:
            UnsafeCheckpoint: It is not.
        """
        if key is None or isinstance(key, (str, bytes, bool, float)):
            return
        if isinstance(key, int) and abs(key) < _SAFE_INTEGERS:
            return
        if isinstance(key, (torch.dtype, torch.device)):
            return
        if isinstance(key, tuple) and len(key) <= _MAX_KEY_ITEMS:
            self.step(1000)  # their hash values can be chosen
            if not any(isinstance(item, tuple) for item in key):
                for item in key:
                    self.check_key(item)
                return
        raise UnsafeCheckpoint(f'it has keys of type {type(key).__name__} that are no plain data')

    def entries(self, given: Any = ()) -> list[tuple[Any, Any]]:
        """Returns the arguments of a dict as a list of keys and values."""
        pairs = list(given.items() if isinstance(given, dict) else given)
        self.charge(BYTES_AN_ENTRY * len(pairs))
        self.step(len(pairs))
        for key, _ in pairs:
            self.check_key(key)
        return [(key, value) for key, value in pairs]

    def ordered_dict(self, given: Any = ()) -> OrderedDict:
        """Builds an ordered dict."""
        self.charge(5 * BYTES_AN_ENTRY)
        return OrderedDict(self.entries(given))

    def counter(self, given: Any = ()) -> Counter:
        """Builds a counter, such as the milestones of a schedule."""
        return Counter(dict(self.entries(given)))

    def members(self, given: Any = ()) -> list[Any]:
        """Returns the argument of a set as a list."""
        items = list(given)
        self.charge(BYTES_AN_ENTRY * len(items))
        self.step(len(items))
        for item in items:
            self.check_key(item)
        return items

    def encoded(self, text: str, encoding: str = 'latin1') -> bytes:
        """Builds bytes from text, as old pickles store them."""
        if encoding not in ('latin1', 'latin-1'):
            refuse_name(f'_codecs.encode with {encoding!r}')
        self.charge(len(text))
        return text.encode('latin1')

    def plain_bytes(self, content: Any = b'', encoding: str = 'latin1') -> bytes:
        """Builds bytes."""
        if isinstance(content, str):
            return self.encoded(content, encoding)
        if not isinstance(content, bytes):
            refuse_name(f'bytes({type(content).__name__})')
        self.charge(len(content))
        return bytes(content)

    def byte_array(self, content: Any = b'', encoding: str = 'latin1') -> bytearray:
        """Builds a byte array."""
        return bytearray(self.plain_bytes(content, encoding))

    # ------------------------------------------------------------------ numpy and mmengine

    def array(self, shape: Any, dtype: Any, fortran: Any, content: Any) -> np.ndarray:
        """Builds an array of plain numbers."""
        if not isinstance(dtype, _DtypeInFile):
            raise UnsafeCheckpoint('it holds a numpy array that is no plain data')
        if isinstance(content, str):  # bytes of Python 2
            content = content.encode('latin1')
        if not isinstance(content, (bytes, bytearray)) or not is_shape(shape):
            raise UnsafeCheckpoint('it holds a numpy array that is no plain data')
        self.charge(len(content))
        array = np.frombuffer(content, dtype.dtype).reshape(shape, order='F' if fortran else 'C')
        return array.astype(dtype.dtype.newbyteorder('='), order='K')

    def scalar(self, dtype: Any, content: Any = b'') -> np.generic:
        """Builds one plain number of numpy's."""
        return self.array((1,), dtype, False, content)[0]

    def numpy_type(self, code: Any, align: Any = False, copy: Any = False) -> _DtypeInFile:
        """Builds a type of plain numbers."""
        if type(code) is not str or len(code) > 8 or np.dtype(code).kind not in _PLAIN_KINDS:
            raise UnsafeCheckpoint(
                f'it holds a numpy array of type {printable(repr(code))}, which is no plain data'
            )
        return _DtypeInFile(code)

    def new_array(self, cls: Any = None, shape: Any = (0,), code: Any = b'b') -> _ArrayInFile:
        """Builds an array whose content comes next."""
        return _ArrayInFile()

    def history(self, state: Any) -> HistoryBuffer:
        """Builds a HistoryBuffer from the state that mmengine stores."""
        values = [settle(state[key], {}, 0) for key in ('_log_history', '_count_history')]
        if any(not isinstance(v, np.ndarray) or v.dtype.kind not in 'biuf' for v in values):
            raise UnsafeCheckpoint('it holds a HistoryBuffer of something else than numbers')
        self.charge(1000)
        buffer = HistoryBuffer(max_length=int(state['max_length']))
        # The statistics that are stored along belong to the class; this process has its own.
        buffer._log_history, buffer._count_history = values
        return buffer

    def attribute(self, owner: Any, name: Any) -> str:
        """Stands for ``getattr``, by which pickle names the statistics of a HistoryBuffer."""
        if owner != _Named(_HISTORY_BUFFER) or name not in _STATISTICS:
            of = owner.name if isinstance(owner, _Named) else type(owner).__name__
            refuse_name(f'getattr({of}, {name!r})')
        return name

    # ------------------------------------------------------------------ tensors

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any, dtype: Any = None
    ) -> Tensor:
        """Builds a tensor that looks at a storage.

        Raises:
            DamagedCheckpoint: It would look beyond the storage's end.
        """
        if not isinstance(storage, Storage) or not is_shape(size) or not is_shape(stride):
            raise DamagedCheckpoint('broken pickle (a tensor without storage or shape)')
        dtype = dtype or storage.dtype
        if dtype in _UNPLAIN_DTYPES or len(size) != len(stride):
            self.refuse_tensor('quantised')
        self.charge(200)
        count = 1
        for length in size:
            count *= length
        self.charge(count * dtype.itemsize)
        end = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1
        memory = storage.memory
        if offset < 0 or (count and end * dtype.itemsize > memory.numel()):
            raise DamagedCheckpoint(
                f'the tensor {self.name_of_next()} of {count} numbers looks beyond the end of its '
                f'{memory.numel()} bytes'
            )
        if memory.numel() % dtype.itemsize:
            raise DamagedCheckpoint('a storage has no whole number of elements')
        return memory.view(dtype).as_strided(size, stride, offset)

    def tensor_of_type(
        self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any
    ) -> Tensor:
        """Builds a tensor that knows its type itself."""
        dtype = rest[2] if len(rest) > 2 else None
        if not isinstance(dtype, torch.dtype):
            raise DamagedCheckpoint('broken pickle (a tensor without type)')
        return self.tensor(storage, offset, size, stride, dtype=dtype)

    def parameter(self, data: Any, *_: Any) -> Tensor:
        """Builds a parameter, as the tensor it is."""
        if not isinstance(data, Tensor):
            raise DamagedCheckpoint('broken pickle (a parameter without tensor)')
        return data

    def tensor_with_attributes(self, named: Any, cls: Any, arguments: Any, _: Any) -> Tensor:
        """Builds a tensor, without the attributes it had."""
        if cls not in (_Named('torch.Tensor'), _Named('torch.nn.parameter.Parameter')):
            name = cls.name if isinstance(cls, _Named) else type(cls).__name__
            raise CheckpointError(f'it holds tensors of class {printable(name)}')
        return self.parameter(self.call(named, arguments))

    def refuse_tensor(self, kind: str) -> NoReturn:
        """Raises CheckpointError about a kind of tensors that no model here takes."""
        raise CheckpointError(
            f'{self.name_of_next()} is a {kind} tensor, which no model here takes; save plain '
            'dense tensors'
        )

    def name_of_next(self) -> str:
        """Returns the key under which the value that is being built will stand, for messages."""
        texts = [x for stack in (*self.marks, self.stack) for x in stack if isinstance(x, str)]
        return printable(texts[-1]) if texts else 'a value'


# ---------------------------------------------------------------------- words and names


def _push_dict(reader: PickleReader, items: list[Any]) -> None:
    reader.stack.append({})
    reader.add_entries(items)


def _push_frozenset(reader: PickleReader, items: list[Any]) -> None:
    reader.stack.append(frozenset(reader.members(items)))


def _push_tuple(count: int) -> Callable[[PickleReader], None]:
    def push(reader: PickleReader) -> None:
        if len(reader.stack) < count:
            raise DamagedCheckpoint('broken pickle (a tuple of too few items)')
        reader.stack[-count:] = [tuple(reader.stack[-count:])]

    return push


def _append(reader: PickleReader) -> None:
    reader.add_items([reader.stack.pop()])


def _pop(reader: PickleReader) -> None:
    reader.stack.pop()


def _set_item(reader: PickleReader) -> None:
    value, key = reader.stack.pop(), reader.stack.pop()
    reader.add_entries([key, value])


Action = Callable[[PickleReader], None]


def _push(value: Any) -> Action:
    return lambda reader: reader.stack.append(value)


def _push_new(kind: type) -> Action:
    return lambda reader: reader.stack.append(kind())


def _push_number(form: str) -> Action:
    size, unpack = struct.calcsize(form), struct.Struct(form).unpack
    return lambda reader: reader.stack.append(unpack(reader.take(size))[0])


def _push_bytes(length: str, read: Callable[[bytes], Any] = bytes) -> Action:
    def push(reader: PickleReader) -> None:
        size = reader.number(length)
        if size < 0:
            raise DamagedCheckpoint('broken pickle (a negative length)')
        reader.stack.append(read(reader.take(size)))

    return push


def _text(content: bytes) -> str:
    return str(content, 'utf8', 'surrogatepass')


def _signed(content: bytes) -> int:
    return int.from_bytes(content, 'little', signed=True)


def _memorise(length: str) -> Action:
    def memorise(reader: PickleReader) -> None:
        reader.memo[reader.number(length)] = reader.stack[-1]

    return memorise


def _recall(length: str) -> Action:
    return lambda reader: reader.stack.append(reader.memo[reader.number(length)])


def _memorise_next(reader: PickleReader) -> None:
    reader.memo[len(reader.memo)] = reader.stack[-1]


def _of_mark(use: Callable[[PickleReader, list[Any]], None]) -> Action:
    return lambda reader: use(reader, reader.since_mark())


def _skip(size: int) -> Action:
    return lambda reader: reader.take(size) and None


_WORDS: dict[bytes, Action] = {
    pickle.PROTO: _skip(1),
    pickle.FRAME: _skip(8),
    pickle.NONE: _push(None),
    pickle.NEWTRUE: _push(True),
    pickle.NEWFALSE: _push(False),
    pickle.BININT: _push_number('<i'),
    pickle.BININT1: _push_number('<B'),
    pickle.BININT2: _push_number('<H'),
    pickle.LONG1: _push_bytes('<B', _signed),
    pickle.LONG4: _push_bytes('<i', _signed),
    pickle.BINFLOAT: _push_number('>d'),
    pickle.BINUNICODE: _push_bytes('<I', _text),
    pickle.SHORT_BINUNICODE: _push_bytes('<B', _text),
    pickle.BINUNICODE8: _push_bytes('<Q', _text),
    # texts of Python 2
    pickle.BINSTRING: _push_bytes('<i', lambda content: content.decode('latin1')),
    pickle.SHORT_BINSTRING: _push_bytes('<B', lambda content: content.decode('latin1')),
    pickle.STRING: lambda reader: reader.stack.append(reader.line()),
    pickle.BINBYTES: _push_bytes('<I'),
    pickle.SHORT_BINBYTES: _push_bytes('<B'),
    pickle.BINBYTES8: _push_bytes('<Q'),
    pickle.BYTEARRAY8: _push_bytes('<Q', bytearray),
    pickle.BINPUT: _memorise('<B'),
    pickle.LONG_BINPUT: _memorise('<I'),
    pickle.MEMOIZE: _memorise_next,
    pickle.BINGET: _recall('<B'),
    pickle.LONG_BINGET: _recall('<I'),
    pickle.MARK: PickleReader.mark,
    pickle.POP: _pop,
    pickle.POP_MARK: _of_mark(lambda reader, items: None),
    pickle.EMPTY_TUPLE: _push(()),
    pickle.TUPLE1: _push_tuple(1),
    pickle.TUPLE2: _push_tuple(2),
    pickle.TUPLE3: _push_tuple(3),
    pickle.TUPLE: _of_mark(lambda reader, items: reader.stack.append(tuple(items))),
    pickle.EMPTY_LIST: _push_new(list),
    pickle.LIST: _of_mark(lambda reader, items: reader.stack.append(items)),
    pickle.APPEND: _append,
    pickle.APPENDS: _of_mark(PickleReader.add_items),
    pickle.EMPTY_DICT: _push_new(dict),
    pickle.DICT: _of_mark(_push_dict),
    pickle.SETITEM: _set_item,
    pickle.SETITEMS: _of_mark(PickleReader.add_entries),
    pickle.EMPTY_SET: _push_new(set),
    pickle.ADDITEMS: _of_mark(PickleReader.add_members),
    pickle.FROZENSET: _of_mark(_push_frozenset),
    pickle.GLOBAL: PickleReader.push_global,
    pickle.INST: PickleReader.refuse_instance,
    pickle.STACK_GLOBAL: PickleReader.push_stack_name,
    pickle.REDUCE: PickleReader.reduce,
    pickle.NEWOBJ: PickleReader.reduce,
    pickle.NEWOBJ_EX: PickleReader.new_object_with_keywords,
    pickle.BUILD: PickleReader.build,
    pickle.BINPERSID: PickleReader.find,
}
_WORDS_OF_PICKLE = {opcode.code.encode('latin1'): opcode.name for opcode in pickletools.opcodes}

_HISTORY_BUFFER = 'mmengine.logging.history_buffer.HistoryBuffer'
_CALLS: dict[str, Callable[..., Any]] = {
    'collections.OrderedDict': PickleReader.ordered_dict,
    'collections.Counter': PickleReader.counter,
    'builtins.set': lambda reader, given=(): set(reader.members(given)),
    'builtins.frozenset': lambda reader, given=(): frozenset(reader.members(given)),
    'builtins.bytes': PickleReader.plain_bytes,
    'builtins.bytearray': PickleReader.byte_array,
    'builtins.complex': lambda reader, real, imaginary: complex(float(real), float(imaginary)),
    'builtins.getattr': PickleReader.attribute,
    '_codecs.encode': PickleReader.encoded,
    # official checkpoints carry their command line
    'argparse.Namespace': lambda reader: argparse.Namespace(),
    _HISTORY_BUFFER: lambda reader: _BufferInFile(),
    'numpy.dtype': PickleReader.numpy_type,
    'torch.Size': lambda reader, size: torch.Size(as_shape(size)),
    'torch.device': lambda reader, kind, index=0: torch.device(kind, index),
    'torch._utils._rebuild_tensor': PickleReader.tensor,
    'torch._utils._rebuild_tensor_v2': PickleReader.tensor,
    'torch._utils._rebuild_tensor_v3': PickleReader.tensor_of_type,
    'torch._utils._rebuild_parameter': PickleReader.parameter,
    'torch._utils._rebuild_parameter_with_state': PickleReader.parameter,
    'torch._tensor._rebuild_from_type_v2': PickleReader.tensor_with_attributes,
    'torch.serialization._get_layout': lambda reader, name: printable(str(name)),
    'torch._utils._rebuild_sparse_tensor': lambda reader, *_: reader.refuse_tensor('sparse'),
    'torch._utils._rebuild_sparse_csr_tensor': lambda reader, *_: reader.refuse_tensor('sparse'),
    'torch._utils._rebuild_qtensor': lambda reader, *_: reader.refuse_tensor('quantised'),
    'torch._utils._rebuild_nested_tensor': lambda reader, *_: reader.refuse_tensor('nested'),
    'torch._utils._rebuild_wrapper_subclass': lambda reader, *_: reader.refuse_tensor('wrapped'),
    'torch._utils._rebuild_meta_tensor_no_storage': (
        lambda reader, *_: reader.refuse_tensor('meta (empty)')
    ),
}
for _module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # numpy 2 renamed it
    _CALLS[f'{_module}._reconstruct'] = PickleReader.new_array
    _CALLS[f'{_module}.scalar'] = PickleReader.scalar

# Names that stand as arguments only.
_MENTIONED = (
    'numpy.ndarray',
    'torch.Tensor',
    'torch.nn.parameter.Parameter',
    *(f'torch.per_{what}' for what in ('tensor_affine', 'tensor_symmetric', 'channel_affine',
      'channel_symmetric', 'channel_affine_float_qparams')),
)  # fmt: skip
_UNPLAIN_DTYPES = tuple(v for n, v in _DTYPES.items() if n.startswith('torch.q')) + tuple(
    v for n, v in _DTYPES.items() if n.startswith('torch.bits')
)


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


def parts_of(value: Any) -> Iterator[Any]:
    """Yields the keys and values, items or attributes of a container.

    Raises:
        UnsafeCheckpoint: It is no container of plain data.
    """
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        yield from value
        yield from value.values()
        if getattr(value, '_metadata', None) is not None:
            yield value._metadata
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value
    else:
        refuse_name(type(value).__name__, 'holds')


def settle(value: Any, seen: dict[int, tuple[Any, Any]], depth: int) -> Any:
    """Returns a value with arrays and buffers in place of those that were on their way."""
    if isinstance(value, (_ArrayInFile, _BufferInFile)):
        if value.content is None:
            raise DamagedCheckpoint('broken pickle (an array without content)')
        return value.content
    if type(value) not in (dict, OrderedDict, list, tuple, argparse.Namespace):
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    if depth > MAX_DEPTH:
        raise UnsafeCheckpoint(f'it is nested more than {MAX_DEPTH} levels deep')
    # Kept beside its successor, so that no other object gets its id meanwhile.
    seen[id(value)] = value, value
    if type(value) is tuple:
        settled = tuple(settle(item, seen, depth + 1) for item in value)
        if any(a is not b for a, b in zip(value, settled, strict=True)):
            seen[id(value)] = value, settled
            return settled
    elif type(value) is list:
        value[:] = [settle(item, seen, depth + 1) for item in value]
    else:
        entries = vars(value) if isinstance(value, argparse.Namespace) else value
        for key, item in list(entries.items()):
            entries[key] = settle(item, seen, depth + 1)
    return value
