"""Exported files of strangers, through the commands: refused with one message, and harmless."""

import os
import pickle
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('mmseg')

from onnx import ModelProto, TensorProto, helper

from attnpool_backbones.cli import main
from attnpool_backbones.inference.exported_facts import KEY
from tests.export.test_files import FACTS, small_model

MEMORY = 12 * 2**30
"""Bytes of addresses that the tests may ask for beside those of the libraries."""


class Malicious:
    def __reduce__(self) -> tuple:
        return os.system, ('touch harmed',)


def outside(place: str) -> ModelProto:
    """The values of a tensor are said to be in a file elsewhere."""
    model = small_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField('raw_data')
    tensor.ClearField('float_data')
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = 'location', place
    return model


def with_node(*arguments: object, **attributes: object) -> ModelProto:
    """A node more, whose result is added to the logits."""
    model = small_model()
    node = helper.make_node(*arguments, ['more'], **attributes)
    model.graph.node.insert(0, node)
    model.graph.node[1].input[1] = 'more'
    if attributes.get('domain'):
        model.opset_import.append(helper.make_opsetid(attributes['domain'], 1))
    return model


def filled(sizes: list[int]) -> ModelProto:
    model = with_node('ConstantOfShape', ['sizes'])
    model.graph.initializer.append(
        helper.make_tensor('sizes', TensorProto.INT64, [len(sizes)], sizes)
    )
    return model


def sized(sizes: list[int]) -> ModelProto:
    """A tensor that tells another size than it has values."""
    model = small_model()
    model.graph.initializer[0].dims[:] = sizes
    return model


def nested(depth: int) -> ModelProto:
    graph = small_model().graph
    for _ in range(depth):
        node = helper.make_node('If', ['images'], ['x'], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], 'g', [], [])
        if len(graph.SerializeToString()) > 2**22:
            break
    model = small_model()
    model.graph.node.append(graph.node[0])
    return model


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, 'w') as file:
        for name in ('data.pkl', 'archive/data.pkl', 'data/weights/x', 'serialized_state_dict.pt'):
            file.writestr(name, pickle.dumps(Malicious()))


GRAPHS: dict[str, Callable[[], ModelProto]] = {
    'values in a file above': lambda: outside('../secret.bin'),
    'values in a file of the system': lambda: outside('/etc/passwd'),
    'values in a device': lambda: outside('/dev/zero'),
    'operator of a library': lambda: with_node('Run', ['images'], domain='com.evil'),
    'operator of Python': lambda: with_node('PythonOp', ['images'], domain='com.microsoft'),
    'terabytes': lambda: filled([2**40]),
    'more bytes than there are numbers': lambda: filled([2**62, 2**62]),
    'negative size': lambda: filled([-5]),
    'tensor without its values': lambda: sized([2**31, 2**31]),
    'tensor of a negative size': lambda: sized([-1]),
    'graphs in graphs': lambda: nested(12),
}
FILES: dict[str, Callable[[Path], None]] = {
    'pickle.onnx': lambda path: path.write_bytes(pickle.dumps(Malicious())),
    'archive.onnx': archive,
    'archive.pt2': archive,
    'noise.onnx': lambda path: path.write_bytes(bytes(range(256)) * 99),
    'empty.onnx': lambda path: path.touch(),
    'device.onnx': lambda path: path.symlink_to('/dev/zero'),
    'pipe.onnx': lambda path: os.mkfifo(path),
    'folder.onnx': lambda path: path.mkdir(),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save('a.png')
    Path('config.py').write_text('default_scope = "mmseg"\n')
    return tmp_path


@pytest.fixture
def little_memory() -> object:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    # libraries of a GPU reserve addresses by the ten billion
    mapped = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def refused(path: Path, capsys: pytest.CaptureFixture) -> None:
    for words in (['predict', str(path), 'a.png'], ['test', str(path), 'config.py']):
        assert main(words) == 2, words
        message = capsys.readouterr().err
        assert 'error: ' in message and 'Traceback' not in message
        assert 'root:' not in message  # of what stands in the file that was named
    assert not Path('harmed').exists()


@pytest.mark.parametrize('name', GRAPHS)
def test_graphs(
    name: str, here: Path, little_memory: object, capsys: pytest.CaptureFixture
) -> None:
    path = here / 'model.onnx'
    path.write_bytes(GRAPHS[name]().SerializeToString())
    refused(path, capsys)


@pytest.mark.parametrize('name', FILES)
def test_files(name: str, here: Path, little_memory: object, capsys: pytest.CaptureFixture) -> None:
    FILES[name](here / name)
    refused(here / name, capsys)


INFO = f"<rt_info><{KEY} value='{FACTS.to_json()}'/></rt_info>".replace('"', '&quot;')
CONSTANT = """<?xml version="1.0"?>{doctype}
<net name="m" version="11"><layers>
<layer id="0" name="images" type="Parameter" version="opset1">
<data shape="1,3,32,32" element_type="f32"/>
<output><port id="0" precision="FP32" names="images"><dim>1</dim><dim>3</dim><dim>32</dim>
<dim>32</dim></port></output></layer>
<layer id="1" name="c" type="{type}" version="{version}">
<data element_type="f32" shape="{shape}" offset="{offset}" size="{size}"/>
<output><port id="0" precision="FP32" names="logits"><dim>1</dim></port></output></layer>
<layer id="2" name="r" type="Result" version="opset1">
<input><port id="0" precision="FP32"><dim>1</dim></port></input></layer>
</layers><edges><edge from-layer="1" from-port="0" to-layer="2" to-port="0"/></edges>{info}</net>
"""
FINE = dict(type='Const', version='opset1', shape='1', offset='0', size='4', doctype='', info=INFO)
ENTITY = '<!DOCTYPE m [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
XML = {
    'values beyond the end': dict(offset='4000000000'),
    'size beyond the end': dict(size='4000000000000', shape='1000000000000'),
    'negative offset': dict(offset='-8'),
    'size that is none': dict(size='x'),
    'operator of a library': dict(type='Run', version='evil'),
    'entity of a file': dict(doctype=ENTITY, info='<x>&e;</x>'),
    'no metadata': dict(info=''),
}


@pytest.mark.parametrize('name', XML)
def test_files_of_openvino(
    name: str, here: Path, little_memory: object, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip('openvino')
    path = here / 'model.xml'
    path.write_text(CONSTANT.format(**FINE | XML[name]))
    path.with_suffix('.bin').write_bytes(bytes(4))
    refused(path, capsys)
