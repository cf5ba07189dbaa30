"""Checkpoints of strangers that want more than to be loaded, by what they want.

Each maker writes one file and returns its path. What a program in them would do is to make the file
``executed`` or to delete the file ``precious`` in the same folder.
"""

import importlib
import io
import os
import pathlib
import pickle
import runpy
import shutil
import socket
import struct
import subprocess
import types
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

Maker = Callable[[Path], str | Path]
WEIGHTS = {'layer1.0.conv1.weight': torch.ones(2, 2)}


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple:
        return self.parts

    def __call__(self) -> None:
        """Lets the result of a call be called in turn."""


class Module(torch.nn.Module):
    """A pickled model, which is a class to be imported."""


def touch(folder: Path) -> str:
    return f'touch {folder / "executed"}'


def program(folder: Path) -> str:
    return f'open({str(folder / "executed")!r}, "w").close()'


# ------------------------------------------------------------------ what is called

CALLS: dict[str, Callable[[Path], Any]] = {
    'os.system': lambda f: Call(os.system, touch(f)),
    'exec': lambda f: Call(exec, program(f)),
    'eval': lambda f: Call(eval, program(f)),
    'popen': lambda f: Call(os.popen, touch(f)),
    'subprocess': lambda f: Call(subprocess.check_call, ['touch', str(f / 'executed')]),
    'import': lambda f: Call(importlib.import_module, 'antigravity'),
    'runpy': lambda f: Call(runpy.run_path, str(f / 'program.py')),
    'open': lambda f: Call(open, str(f / 'executed'), 'w'),
    'rmtree': lambda f: Call(shutil.rmtree, str(f)),
    'remove': lambda f: Call(os.remove, str(f / 'precious')),
    'unlink': lambda f: Call(Path.unlink, Path(f / 'precious')),
    'pickle.loads': lambda f: Call(pickle.loads, pickle.dumps(Call(os.system, touch(f)))),
    'torch.load': lambda f: Call(torch.load, str(f / 'other.pth')),
    'storage from bytes': lambda f: Call(torch.storage._load_from_bytes, b'x'),
    'torch.hub': lambda f: Call(torch.hub.load, str(f), 'model'),
    'namespace': lambda f: Call(types.SimpleNamespace, state={'x': 1}),
    'partial': lambda f: Call(Call(partial, exec, program(f))),
    'getattr of a module': lambda f: Call(
        Call(getattr, Call(__import__, 'os'), 'system'), touch(f)
    ),
    'getattr of a tensor': lambda f: Call(getattr, torch.zeros(1), 'backward'),
    'getattr of a class': lambda f: Call(getattr, HistoryBuffer, '__init__'),
    'getattr of a method': lambda f: Call(
        getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__'
    ),
    'setattr': lambda f: Call(setattr, torch.nn.Module, 'forward', 1),
    'compress': lambda f: Call(zlib.decompress, zlib.compress(bytes(10))),
    'input': lambda f: Call(input),
    'exit': lambda f: Call(os._exit, 0),
    'kill': lambda f: Call(os.kill, 0, 0),
    'socket': lambda f: Call(socket.create_connection, ('127.0.0.1', 9)),
    'path': lambda f: Call(pathlib.Path.touch, pathlib.PurePath('executed')),
    'config': lambda f: Call(
        importlib.import_module('mmengine').Config.fromstring, program(f), '.py'
    ),
    'history of lists': lambda f: Call(HistoryBuffer, [1], [1]),
    'statistics method': lambda f: Call(
        HistoryBuffer.__new__, HistoryBuffer, state={'_statistics_methods': {'mean': os.system}}
    ),
    'state of a dict': lambda f: Call(
        OrderedDict, [('a', 1)], state={'__class__': Call(os.system, touch(f))}
    ),
    'object array': lambda f: np.array([Call(os.system, touch(f))], dtype=object),
    'record array': lambda f: np.zeros(1, dtype=[('a', 'f8')]),
    'object type': lambda f: Call(np.dtype, 'O', False, True),
    'array over memory': lambda f: Call(np.ndarray, (4,), 'f8', b'0' * 32),
    'memmap': lambda f: Call(np.memmap, str(f / 'precious'), 'u1', 'w+', 0, (1,)),
    'fromfile': lambda f: Call(np.fromfile, '/etc/passwd', 'u1'),
    'encode': lambda f: Call(__import__('_codecs').encode, 'x' * 9, 'zlib_codec'),
    'class': lambda f: Module,
    'pickled model': lambda f: Module(),
}


def saved(content: Any, folder: Path, zipped: bool = True) -> Path:
    torch.save(
        {'state_dict': WEIGHTS, 'meta': {'x': content}},
        folder / 'x.pth',
        _use_new_zipfile_serialization=zipped,
    )
    return folder / 'x.pth'


def bare(content: Any, folder: Path, protocol: int) -> Path:
    (folder / 'x.pth').write_bytes(pickle.dumps(content, protocol))
    return folder / 'x.pth'


def with_pickle(pickled: bytes, folder: Path, extra: dict[str, bytes] | None = None) -> Path:
    """Writes a zip file as torch does, around any pickle."""
    with zipfile.ZipFile(folder / 'x.pth', 'w') as archive:
        archive.writestr('x/data.pkl', pickled)
        archive.writestr('x/version', b'3\n')
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return folder / 'x.pth'


def torchscript(folder: Path) -> Path:
    torch.jit.script(torch.nn.Linear(1, 1)).save(folder / 'x.pth')
    return folder / 'x.pth'


CODE: dict[str, Maker] = {
    **{name: lambda f, m=make: saved(m(f), f) for name, make in CALLS.items()},
    **{
        f'{name}, old format': lambda f, n=name: saved(CALLS[n](f), f, zipped=False)
        for name in ('os.system', 'exec', 'rmtree', 'getattr of a module', 'pickled model')
    },
    **{
        f'{name}, bare pickle {protocol}': lambda f, n=name, p=protocol: bare(CALLS[n](f), f, p)
        for name in ('os.system', 'exec', 'remove')
        for protocol in (0, 2, 4)
    },
    'INST': lambda f: with_pickle(f"(S'{touch(f)}'\nios\nsystem\n.".encode(), f),
    'OBJ': lambda f: with_pickle(b"(cos\nsystem\nS'ls'\no.", f),
    'EXT': lambda f: with_pickle(b'\x82\x01)R.', f),
    'persistent id of a module': lambda f: with_pickle(
        b'\x80\x02(X\x06\x00\x00\x00modulecos\nsystem\nNNtQ.', f
    ),
    'TorchScript': torchscript,
}

# ------------------------------------------------------------------ what would fill the memory


def nested_lists(depth: int) -> bytes:
    return b'\x80\x02' + b']' * depth + b'a' * (depth - 1) + b'.'


def nested_references(levels: int, key: bool = False) -> bytes:
    """A tuple of twice the tuple of twice the ...: small in memory, huge written out."""
    twice = b'K\x01' + b''.join(b'q' + bytes([n]) + b'h' + bytes([n]) + b'\x86'
                                for n in range(levels))  # fmt: skip
    if key:
        return b'\x80\x02}' + twice + b'K\x01s.'
    return b'\x80\x02}X\x04\x00\x00\x00meta}X\x04\x00\x00\x00seed' + twice + b'ss.'


def deflated(folder: Path, member: str, told: int | None = None) -> Path:
    """A member that inflates to 6.5 GB; the directory may tell another size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    with zipfile.ZipFile(folder / 'x.pth', 'w') as archive:
        if member != 'data.pkl':
            archive.writestr('x/data.pkl', pickle.dumps({'w': 1}, 2))
        archive.writestr(f'x/{member}', block * 390 + packer.flush())
        packed = archive.filelist[-1]
        packed.compress_type = zipfile.ZIP_DEFLATED
        packed.file_size = 390 * 2**24 if told is None else told
    return folder / 'x.pth'


def tensor_pickle(count: int, size: tuple, stride: tuple) -> bytes:
    """The pickle of one float tensor that looks at a storage of ``count`` numbers."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if value is marker:
                return ('storage', torch.FloatStorage, '0', 'cpu', count)
            return None

    marker = types.SimpleNamespace()
    buffer = io.BytesIO()
    arguments = (marker, 0, size, stride, False, OrderedDict())
    Pickler(buffer, 2).dump({'conv1.weight': Call(torch._utils._rebuild_tensor_v2, *arguments)})
    return buffer.getvalue()


def tensor_file(folder: Path, count: int, size: tuple, stride: tuple, stored: int = 4) -> Path:
    return with_pickle(tensor_pickle(count, size, stride), folder, {'x/data/0': bytes(stored)})


def old_format(folder: Path, count: int) -> Path:
    buffer = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}):
        pickle.dump(value, buffer, 2)
    pickled = tensor_pickle(count, (1,), (1,))
    # the old format has a fifth part in the address of a storage
    pickled = pickled.replace(b'tq', b'Ntq').replace(b'tQ', b'NtQ') if b'tQ' in pickled else pickled
    buffer.write(pickled)
    pickle.dump(['0'], buffer, 2)
    buffer.write(struct.pack('<q', count) + bytes(4))
    (folder / 'x.pth').write_bytes(buffer.getvalue())
    return folder / 'x.pth'


def long_directory(folder: Path) -> Path:
    with zipfile.ZipFile(folder / 'x.pth', 'w') as archive:
        archive.writestr('x/data.pkl', pickle.dumps({}, 2))
        info = zipfile.ZipInfo('x/version')
        info.comment = b'c' * 65000
        archive.writestr(info, b'3')
        archive.filelist.extend([info] * 300)
    return folder / 'x.pth'


def repeated_member(folder: Path) -> Path:
    """The members of a directory all lie at the same place."""
    content = bytes(2**20)
    with zipfile.ZipFile(folder / 'x.pth', 'w') as archive:
        archive.writestr('x/data.pkl', pickle.dumps({'w': 1}, 2))
        archive.writestr('x/data/0', content)
        first = archive.filelist[-1]
        for n in range(1, 3000):
            other = zipfile.ZipInfo(f'x/data/{n}')
            for key in ('header_offset', 'CRC', 'file_size', 'compress_size'):
                setattr(other, key, getattr(first, key))
            archive.filelist.append(other)
    return folder / 'x.pth'


def safetensors_file(folder: Path, header: bytes, length: int | None = None) -> Path:
    length = len(header) if length is None else length
    (folder / 'x.safetensors').write_bytes(length.to_bytes(8, 'little') + header)
    return folder / 'x.safetensors'


def repeated(build: bytes, count: int, setup: bytes = b'') -> bytes:
    return b'\x80\x02' + setup + b']q\x09(' + build * count + b'e.'


BIG_TEXT = b'X' + struct.pack('<I', 2**20) + b'a' * 2**20 + b'q\x01'
ENCODE = b'c_codecs\nencode\nq\x02'
SIZED = b'cbuiltins\nbytearray\n'

BOMBS: dict[str, Maker] = {
    'inflating pickle': lambda f: deflated(f, 'data.pkl'),
    'inflating storage': lambda f: deflated(f, 'data/0'),
    'inflating extra member': lambda f: deflated(f, 'notes'),
    'directory that tells less': lambda f: deflated(f, 'data.pkl', told=10**6),
    'repeated member': repeated_member,
    'long directory': long_directory,
    'bytearray of 10 GB': lambda f: with_pickle(b'\x80\x02' + SIZED + b'\x8a\x05'
                                                + (10**10).to_bytes(5, 'little') + b'\x85R.', f),
    'tensor of 40 GB': lambda f: saved(Call(torch.FloatTensor, 10**10), f),
    'nested lists': lambda f: with_pickle(nested_lists(100_000), f),
    'nested references': lambda f: with_pickle(nested_references(60), f),
    'nested references as a key': lambda f: with_pickle(nested_references(60, key=True), f),
    'list that contains itself': lambda f: with_pickle(b'\x80\x02]q\x01h\x01a.', f),
    'copies of a text': lambda f: with_pickle(
        repeated(b'h\x02h\x01X\x06\x00\x00\x00latin1\x86R', 6000, BIG_TEXT + b'0' + ENCODE + b'0'),
        f,
    ),
    'copies of a set': lambda f: with_pickle(
        repeated(b'h\x02h\x01\x85R', 20_000, b']q\x01(' + b''.join(
            b'M' + struct.pack('<H', n) for n in range(50_000)) + b'e0cbuiltins\nset\nq\x020'), f
    ),
    'colliding keys': lambda f: with_pickle(
        b'\x80\x02}(' + b''.join(
            b'\x8a\x0a' + (n * (2**61 - 1)).to_bytes(10, 'little') + b'N'
            for n in range(1, 200_000)) + b'u.', f
    ),
    'number of a million digits': lambda f: saved(10**100_000, f),
    'tensor beyond its storage': lambda f: tensor_file(f, 1, (10**5, 10**5), (10**5, 1)),
    'expanded tensor': lambda f: tensor_file(f, 1, (10**5, 10**5), (0, 0)),
    'storage of 40 GB': lambda f: tensor_file(f, 10**10, (1,), (1,)),
    'storage of 40 GB, old format': lambda f: old_format(f, 10**10),
    'memo of 4 billion': lambda f: with_pickle(b'\x80\x02(r\xff\xff\xff\xff.', f),
    'safetensors header of 10 GB': lambda f: safetensors_file(f, b'{}', 10**10),
    'safetensors of 40 GB': lambda f: safetensors_file(
        f, b'{"w":{"dtype":"F32","shape":[10000000000],"data_offsets":[0,40000000000]}}'
    ),
    'safetensors of nested lists': lambda f: safetensors_file(f, b'{"w":' + b'[' * 10**6 + b'}'),
}  # fmt: skip

MILLIONS: dict[str, Maker] = {
    'millions of lists': lambda f: with_pickle(repeated(b']', 8_000_000), f),
    'millions of dicts': lambda f: with_pickle(
        repeated(b'h\x01)R', 2_500_000, b'ccollections\nOrderedDict\nq\x01'), f
    ),
    'references to a text': lambda f: with_pickle(
        repeated(b'h\x01', 4_000_000, BIG_TEXT + b'0'), f
    ),
}  # fmt: skip

# ------------------------------------------------------------------ what is no file


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / 'x.pth')
    return folder / 'x.pth'


def unix_socket(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        # the path of a socket has to be short
        here = os.getcwd()
        os.chdir(folder)
        try:
            listener.bind('x.pth')
        finally:
            os.chdir(here)
    return folder / 'x.pth'


def link(folder: Path, target: str) -> Path:
    (folder / 'x.pth').symlink_to(target)
    return folder / 'x.pth'


KINDS: dict[str, Maker] = {
    'pipe': pipe,
    'link to a pipe': lambda f: link(f, os.mkfifo(f / 'p') or 'p'),
    'device': lambda f: '/dev/zero',
    'link to a device': lambda f: link(f, '/dev/urandom'),
    'socket': unix_socket,
    'link to itself': lambda f: link(f, 'x.pth'),
    'file:// of a device': lambda f: 'file:///dev/zero',
}
