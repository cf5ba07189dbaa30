"""The stack machine."""

import _compat_pickle  # names of Python 2, in which protocol 2 is written to this day
import argparse
import struct
from collections import OrderedDict
from typing import Any, BinaryIO, NoReturn

from torch import Tensor

from attnpool_backbones.checkpoints.errors import (
    CheckpointError,
    DamagedCheckpoint,
    UnsafeCheckpoint,
)
from attnpool_backbones.checkpoints.message_texts import printable
from attnpool_backbones.checkpoints.unpickling.array_builders import array, history
from attnpool_backbones.checkpoints.unpickling.content import finished
from attnpool_backbones.checkpoints.unpickling.limits import (
    BYTES_AN_ENTRY,
    COPIES,
    MAX_STEPS,
    SPARE_BYTES,
)
from attnpool_backbones.checkpoints.unpickling.names import CALLS, MENTIONED
from attnpool_backbones.checkpoints.unpickling.stand_ins import (
    ArrayInFile,
    BufferInFile,
    DtypeInFile,
    Named,
    StorageSource,
    is_storage,
    refuse_name,
)
from attnpool_backbones.checkpoints.unpickling.tensor_builders import DTYPES, STORAGE_DTYPES
from attnpool_backbones.checkpoints.unpickling.words import NAMES, WORDS


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
        words, read = WORDS, self.file.read
        try:
            for _ in range(MAX_STEPS):
                word = read(1)
                if word == b'.':
                    return finished(self.stack.pop())
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
        if word in NAMES:
            name = NAMES[word]
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
        if name in DTYPES:
            self.stack.append(DTYPES[name])
            return
        if name not in CALLS and name not in MENTIONED and not is_storage(name):
            refuse_name(name)
        self.stack.append(Named(name))

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
        if not isinstance(named, Named) or named.name not in CALLS:
            name = named.name if isinstance(named, Named) else type(named).__name__
            refuse_name(name)
        if not isinstance(arguments, tuple):
            raise DamagedCheckpoint('broken pickle (arguments that are no tuple)')
        try:
            return CALLS[named.name](self, *arguments)
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
        elif isinstance(value, DtypeInFile):
            if state[1] not in ('<', '>', '=', '|') or any(x is not None for x in state[2:5]):
                raise UnsafeCheckpoint('it holds a numpy type that is no plain number')
            value.dtype = value.dtype.newbyteorder(state[1])
        elif isinstance(value, ArrayInFile):
            _, shape, dtype, fortran, content = state
            if value.content is not None:
                raise UnsafeCheckpoint('it fills a numpy array twice')
            value.content = array(self, shape, dtype, fortran, content)
        elif isinstance(value, BufferInFile):
            value.content = history(self, state)
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
        kind = named.name.rpartition('.')[2] if isinstance(named, Named) else ''
        if kind.startswith('Q') and is_storage(named.name):
            self.stack.append(named)  # the tensor that looks at it will be refused by its name
            return
        if kind not in STORAGE_DTYPES:
            raise CheckpointError(f'it holds tensors of storage {printable(kind or repr(named))}')
        self.stack.append(self.find_storage(STORAGE_DTYPES[kind], address[2:]))
