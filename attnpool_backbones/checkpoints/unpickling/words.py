"""The words of the stack machine that a pickle is a program for."""

import pickle
import pickletools
import struct
from collections.abc import Callable
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from attnpool_backbones.checkpoints.errors import DamagedCheckpoint
from attnpool_backbones.checkpoints.unpickling.plain_builders import (
    add_entries,
    add_items,
    add_members,
    members,
)

if TYPE_CHECKING:
    from attnpool_backbones.checkpoints.unpickling.machine import PickleReader

Action = Callable[['PickleReader'], None]


def _push_dict(reader: 'PickleReader', items: list[Any]) -> None:
    reader.stack.append({})
    add_entries(reader, items)


def _push_frozenset(reader: 'PickleReader', items: list[Any]) -> None:
    reader.stack.append(frozenset(members(reader, items)))


def _push_tuple(count: int) -> Callable[['PickleReader'], None]:
    def push(reader: 'PickleReader') -> None:
        if len(reader.stack) < count:
            raise DamagedCheckpoint('broken pickle (a tuple of too few items)')
        reader.stack[-count:] = [tuple(reader.stack[-count:])]

    return push


def _append(reader: 'PickleReader') -> None:
    add_items(reader, [reader.stack.pop()])


def _pop(reader: 'PickleReader') -> None:
    reader.stack.pop()


def _set_item(reader: 'PickleReader') -> None:
    value, key = reader.stack.pop(), reader.stack.pop()
    add_entries(reader, [key, value])


def _push(value: Any) -> Action:
    return lambda reader: reader.stack.append(value)


def _push_new(kind: type) -> Action:
    return lambda reader: reader.stack.append(kind())


def _number(form: str) -> Callable[['PickleReader'], Any]:
    size, unpack = struct.calcsize(form), struct.Struct(form).unpack
    return lambda reader: unpack(reader.take(size))[0]


def _push_number(form: str) -> Action:
    number = _number(form)
    return lambda reader: reader.stack.append(number(reader))


def _push_bytes(form: str, read: Callable[[bytes], Any] = bytes) -> Action:
    length = _number(form)

    def push(reader: 'PickleReader') -> None:
        size = length(reader)
        if size < 0:
            raise DamagedCheckpoint('broken pickle (a negative length)')
        reader.stack.append(read(reader.take(size)))

    return push


def _text(content: bytes) -> str:
    return str(content, 'utf8', 'surrogatepass')


def _signed(content: bytes) -> int:
    return int.from_bytes(content, 'little', signed=True)


def _memorise(form: str) -> Action:
    place = _number(form)

    def memorise(reader: 'PickleReader') -> None:
        reader.memo[place(reader)] = reader.stack[-1]

    return memorise


def _recall(form: str) -> Action:
    place = _number(form)
    return lambda reader: reader.stack.append(reader.memo[place(reader)])


def _memorise_next(reader: 'PickleReader') -> None:
    reader.memo[len(reader.memo)] = reader.stack[-1]


def _of_mark(use: Callable[['PickleReader', list[Any]], None]) -> Action:
    return lambda reader: use(reader, reader.since_mark())


def _skip(size: int) -> Action:
    return lambda reader: reader.take(size) and None


WORDS: dict[bytes, Action] = {
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
    pickle.MARK: methodcaller('mark'),
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
    pickle.APPENDS: _of_mark(add_items),
    pickle.EMPTY_DICT: _push_new(dict),
    pickle.DICT: _of_mark(_push_dict),
    pickle.SETITEM: _set_item,
    pickle.SETITEMS: _of_mark(add_entries),
    pickle.EMPTY_SET: _push_new(set),
    pickle.ADDITEMS: _of_mark(add_members),
    pickle.FROZENSET: _of_mark(_push_frozenset),
    pickle.GLOBAL: methodcaller('push_global'),
    pickle.INST: methodcaller('refuse_instance'),
    pickle.STACK_GLOBAL: methodcaller('push_stack_name'),
    pickle.REDUCE: methodcaller('reduce'),
    pickle.NEWOBJ: methodcaller('reduce'),
    pickle.NEWOBJ_EX: methodcaller('new_object_with_keywords'),
    pickle.BUILD: methodcaller('build'),
    pickle.BINPERSID: methodcaller('find'),
}
"""What each word of a checkpoint's pickle does."""
NAMES = {opcode.code.encode('latin1'): opcode.name for opcode in pickletools.opcodes}
"""Of all words that pickle has, for messages."""
