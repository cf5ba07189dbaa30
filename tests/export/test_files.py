"""Exported files of strangers are data: nothing of them is run, and what is wrong is told."""

import json
import runpy
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('mmcv')

from onnx import TensorProto, helper

from attnpool_backbones.command_line import UserError
from attnpool_backbones.inference.exported_facts import KEY, Facts
from attnpool_backbones.inference.exported_model import ExportedModel
from attnpool_backbones.inference.loading import load
from attnpool_backbones.inference.onnx_engine import OnnxEngine, read_onnx
from attnpool_backbones.inference.preparation import Preparation, Resize

FACTS = Facts(
    task='segmentation',
    classes=('one', 'two', 'three'),
    palette=((1, 2, 3), (4, 5, 6), (7, 8, 9)),
    preparation=Preparation((Resize((64, 48)), Resize(divisor=4))),
    score=0.0,
    mask=None,
)


def small_model(metadata=None, inputs=('images',), outputs=('labels', 'logits')):
    """A segmentor whose logits are the channels of the image."""
    shape = ['B', 3, 'H', 'W']
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs]
    results = [
        helper.make_tensor_value_info(outputs[0], TensorProto.INT64, ['B', 'H', 'W']),
        helper.make_tensor_value_info(outputs[1], TensorProto.FLOAT, shape),
    ]
    weight = helper.make_tensor('one', TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node('Mul', [inputs[0], 'one'], [outputs[1]]),
        helper.make_node('ArgMax', [outputs[1]], [outputs[0]], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(nodes, 'small', values, results, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    helper.set_model_props(model, metadata or {KEY: FACTS.to_json()})
    return model


def write(tmp_path, model):
    path = tmp_path / 'model.onnx'
    path.write_bytes(model.SerializeToString())
    return path


def test_facts_go_through_a_file():
    assert Facts.from_json(FACTS.to_json()) == FACTS
    fixed = replace(
        FACTS, task='detection', size=(64, 96), batch=2, mask=0.5, score=0.05, fill=(1.5, 2.0, 3.0)
    )
    assert Facts.from_json(fixed.to_json()) == fixed


def test_predictions_of_a_file(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    (found,) = load(write(tmp_path, small_model()))(image)
    assert found.label_map.shape == (30, 40) and found.classes == FACTS.classes
    assert np.array_equal(found.palette, FACTS.palette)
    (same,) = load(
        write(tmp_path, small_model({KEY: replace(FACTS, preparation=Preparation()).to_json()}))
    )(np.full((32, 32, 3), (1, 9, 5), np.uint8))
    assert (same.label_map == 1).all()


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(classes=[]), 'classes cannot be'),
        (dict(classes=['x' * 300] * 3), 'classes cannot be'),
        (dict(classes=[1, 2, 3]), 'classes cannot be'),
        (dict(palette=[[0, 0, 0]]), 'palette cannot be'),
        (dict(palette=[[0, 0, 256]] * 3), 'palette cannot be'),
        (dict(task='training'), 'task cannot be'),
        (dict(score=2), 'score cannot be'),
        (dict(score='0.5'), 'score cannot be'),
        (dict(mask=float('nan')), 'mask cannot be'),
        (dict(size=[10**9, 1]), 'size cannot be'),
        (dict(batch=0), 'batch cannot be'),
        (dict(batch=True), 'batch cannot be'),
        (dict(fill=[0, 0]), 'fill cannot be'),
        (dict(fill=[0, 0, float('nan')]), 'fill cannot be'),
        (dict(fill=[0, 0, '1']), 'fill cannot be'),
        (dict(smallest=10**9), 'smallest cannot be'),
        (dict(made=['x']), 'made cannot be'),
        (dict(format=2), 'another version'),
        (dict(config="__import__('os')"), "unknown is .'config'"),
        (dict(preparation=[dict(type='os.system')]), 'no step of a preparation'),
        (dict(preparation=[dict(scale=[10**9, 10**9])]), 'scale has to be'),
        (dict(preparation=[dict(factor=1e9)]), 'factor has to be'),
        (dict(preparation=[dict(divisor=10**6)]), 'divisor has to be'),
        (dict(preparation=[{}] * 17), 'at most 16'),
        (dict(preparation='Resize'), 'at most 16'),
    ],
)
def test_metadata_of_strangers(change, words, tmp_path):
    data = dict(json.loads(FACTS.to_json()), **change)
    with pytest.raises(UserError, match=words):
        read_onnx(write(tmp_path, small_model({KEY: json.dumps(data)})))


@pytest.mark.parametrize(
    'text, words',
    [
        ('', 'Expecting value'),
        ('[' * 200_000, 'nested too deeply'),
        ('[]', 'no table'),
        ('"' + 'x' * (1 << 20) + '"', 'characters'),
        ('{"format": 1}', 'lacks'),
    ],
    ids=['empty', 'deep', 'list', 'long', 'lacking'],
)
def test_metadata_that_is_none(text, words, tmp_path):
    with pytest.raises(UserError, match=words):
        read_onnx(write(tmp_path, small_model({KEY: text})))


def test_files_that_are_none(tmp_path):
    path = tmp_path / 'model.onnx'
    with pytest.raises(UserError, match='not there'):
        read_onnx(path)
    path.write_bytes(b'no model' * 100)
    with pytest.raises(UserError, match='no ONNX file'):
        read_onnx(path)
    with pytest.raises(UserError, match='not one of attnpool export'):
        read_onnx(write(tmp_path, small_model({'other': 'x'})))
    with pytest.raises(UserError, match='outputs'):
        read_onnx(write(tmp_path, small_model(outputs=('labels', 'boxes'))))
    (tmp_path / 'folder.onnx').mkdir()
    with pytest.raises(UserError, match='no ordinary file'):
        read_onnx(tmp_path / 'folder.onnx')


@pytest.mark.parametrize('place', ['initializer', 'constant', 'subgraph', 'function'])
def test_values_in_other_files_are_refused(place, tmp_path):
    (tmp_path / 'secret').write_bytes(b'\0' * 4)
    tensor = TensorProto(name='stolen', data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value='../secret')
    model = small_model()
    constant = helper.make_node('Constant', [], ['stolen'], value=tensor)
    if place == 'initializer':
        model.graph.initializer.append(tensor)
    elif place == 'constant':
        model.graph.node.append(constant)
    elif place == 'subgraph':
        inner = helper.make_graph([constant], 'inner', [], [])
        model.graph.node.append(helper.make_node('If', ['one'], ['x'], then_branch=inner))
    else:
        model.functions.append(helper.make_function('d', 'f', [], ['stolen'], [constant], []))
    with pytest.raises(UserError, match="'stolen' are said to be in another file"):
        read_onnx(write(tmp_path, model))


def test_one_size():
    fixed = replace(FACTS, size=(40, 48), batch=2, preparation=Preparation())
    seen = []

    def forward(images):
        seen.append(images.shape)
        return dict(labels=images.argmax(1), logits=images)

    pipeline = fixed.preparation
    images = [np.full((h, w, 3), 7, np.uint8) for h, w in ((40, 48), (20, 48), (33, 9))]
    data = [pipeline(dict(img=image)) for image in images]
    batch = {key: [entry[key] for entry in data] for key in ('inputs', 'data_samples')}
    model = ExportedModel(forward, fixed)
    found = model.test_step(batch)
    assert seen == [(2, 3, 40, 48)] * 2
    assert [tuple(f.pred_sem_seg.data.shape[1:]) for f in found] == [(40, 48), (20, 48), (33, 9)]
    large = pipeline(dict(img=np.zeros((41, 48, 3), np.uint8)))
    with pytest.raises(UserError, match='up to 40x48 .* has 41x48; export it with --size'):
        model.test_step({key: [value] for key, value in large.items()})


@pytest.mark.parametrize(
    'size, shape, expected',
    [
        ((96, 128), (200, 100), (96, 48)),
        ((96, 128), (100, 90), (96, 86)),
        ((128, 96), (60, 120), (48, 96)),
        ((96, 128), (100, 200), (64, 128)),
        ((96, 128), (9, 4000), (1, 128)),
        ((96, 128), (96, 128), (96, 128)),
    ],
)
def test_images_become_as_large_as_fits(size, shape, expected):
    height, width = size
    facts = replace(
        FACTS, size=size, preparation=Preparation((Resize((width, height), inside=True),))
    )
    old = json.loads(facts.to_json())
    # as they were written before there was `inside`
    old['preparation'] = [dict(scale=[width, height], factor=1.0, keep_ratio=True, divisor=None)]
    for read in (Facts.from_json(facts.to_json()), Facts.from_json(json.dumps(old))):
        inputs = read.preparation(dict(img=np.zeros((*shape, 3), np.uint8)))['inputs']
        assert tuple(inputs.shape) == (3, *expected)


def test_objects_around_an_image():
    fixed = replace(
        FACTS, task='detection', mask=0.5, size=(40, 48), preparation=Preparation(), fill=(1, 2, 3)
    )
    seen = []

    def forward(images):
        seen.append(images[0])
        boxes = [[0, 10, 20, 30], [0, 25, 10, 35], [5, 0, 5, 9]]
        masks = np.zeros((1, 3, 4, 4), np.float32)
        masks[:, :, :2] = 1  # the upper half of each box
        return dict(
            boxes=np.array([boxes], np.float32),
            scores=np.array([[0.9, 0.8, 0.7]], np.float32),
            labels=np.array([[0, 1, 2]]),
            masks=masks,
        )

    data = fixed.preparation(dict(img=np.full((20, 48, 3), 9, np.uint8)))
    (sample,) = ExportedModel(forward, fixed).test_step({k: [v] for k, v in data.items()})
    assert (seen[0][:, :20] == 9).all() and (seen[0][:, 20:].T == (1, 2, 3)).all()
    found = sample.pred_instances
    # the second one is below the image; the third one has no size by the model's own doing
    assert found.labels.tolist() == [0, 2]
    assert found.bboxes.tolist() == [[0, 10, 20, 20], [5, 0, 5, 9]]
    # of the whole box, not squeezed into what is left of it
    assert found.masks[0, 11:, 2:18].all() and not found.masks[0, :10].any()


def test_steps_of_a_config():
    known = [
        dict(type='LoadImageFromFile', backend_args=None),
        dict(type='Resize', scale=(1333, 800), keep_ratio=True),
        dict(type='mmseg.ResizeToMultiple', size_divisor=32),
        dict(type='PackSegInputs'),
    ]
    read = Preparation.of_pipeline(known)
    assert read.steps == (Resize((1333, 800), keep_ratio=True), Resize(divisor=32))
    assert Preparation.from_data(json.loads(json.dumps(read.to_data()))) == read
    with pytest.raises(UserError, match='step .*CLAHE.* cannot hold'):
        Preparation.of_pipeline([*known, dict(type='CLAHE')])
    for backend, is_possible in {None: True, 'cv2': True, 'pillow': False}.items():
        steps = [known[0], dict(known[1], backend=backend)]
        if is_possible:
            assert Preparation.of_pipeline(steps).steps == read.steps[:1]
            continue
        with pytest.raises(UserError, match="step .*'backend': 'pillow'.* cannot hold"):
            Preparation.of_pipeline(steps)
    # what is not resized is the same in whole numbers
    assert Preparation.of_pipeline([dict(known[0], to_float32=True)]).steps == ()


@pytest.mark.parametrize(
    'steps, size',
    [
        ((), None),
        ((Resize((64, 48)),), (48, 64)),
        ((Resize((64, 48), keep_ratio=True),), None),
        ((Resize((64, 48), inside=True),), None),
        ((Resize(divisor=32), Resize((70, 50)), Resize(divisor=16)), (64, 80)),
        ((Resize((70, 50)), Resize((64, 48), keep_ratio=True)), (46, 64)),
        ((Resize((70, 50)), Resize(factor=2.0)), (100, 140)),
        ((Resize(divisor=32), Resize(factor=2.0)), None),
    ],
)
def test_size_of_all_images_that_are_ready(steps, size):
    preparation = Preparation(steps)
    found = {
        tuple(preparation(dict(img=np.zeros((*shape, 3), np.uint8)))['inputs'].shape[1:])
        for shape in ((60, 90), (90, 60), (100, 100))
    }
    assert preparation.size == size
    assert found == {size} if size else len(found) > 1


@pytest.mark.parametrize(
    'settings, is_possible',
    [
        (dict(color_type='color', imdecode_backend='cv2', to_float32=False), True),
        (dict(imdecode_backend=None, ignore_empty=True), True),
        (dict(imdecode_backend='pillow'), True),
        (dict(imdecode_backend='turbojpeg'), False),
        (dict(color_type='color_ignore_orientation'), False),
        (dict(color_type='unchanged'), False),
        (dict(imdecode_backend='tifffile'), False),
        (dict(to_float32=True), False),
    ],
)
def test_images_are_loaded_as_a_file_gets_them(settings, is_possible):
    steps = [dict(type='LoadImageFromFile', **settings), dict(type='ResizeToMultiple')]
    if is_possible:
        assert Preparation.of_pipeline(steps).steps == (Resize(divisor=32),)
        return
    key, value = next(iter(settings.items()))
    with pytest.raises(UserError, match=f'LoadImageFromFile has {key}={value!r}'):
        Preparation.of_pipeline(steps)


def test_devices(tmp_path):
    content, _ = read_onnx(write(tmp_path, small_model()))
    with pytest.raises(UserError, match='--device tpu: this onnxruntime runs on cpu'):
        OnnxEngine(content, 'tpu')
    with pytest.raises(UserError, match='onnxruntime on images of 1x4x2x2'):
        OnnxEngine(content)(np.zeros((1, 4, 2, 2), np.float32))


def test_a_device_that_onnxruntime_cannot_start(tmp_path, monkeypatch):
    import onnxruntime

    content, _ = read_onnx(write(tmp_path, small_model()))
    providers = ['CUDAExecutionProvider', 'CPUExecutionProvider']
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: providers)
    if 'CUDAExecutionProvider' in onnxruntime.capi._pybind_state.get_available_providers():
        pytest.skip('this onnxruntime is built for CUDA')
    with pytest.warns(UserWarning), pytest.raises(UserError, match='cuda: onnxruntime cannot use'):
        OnnxEngine(content, 'cuda')


def test_a_file_needs_no_torch_that_knows_its_device(tmp_path):
    model = load(write(tmp_path, small_model()))
    model.device = 'cuda:99'
    (found,) = model(np.zeros((30, 40, 3), np.uint8))
    assert found.label_map.shape == (30, 40)


def test_files_of_openvino(tmp_path):
    pytest.importorskip('openvino')
    from attnpool_backbones.export.openvino_file import to_openvino, write_openvino

    target = tmp_path / 'model.xml'
    graph, weights = to_openvino(small_model().SerializeToString(), FACTS)
    write_openvino(graph, weights, target)
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    results = [load(file)(image) for file in (target, write(tmp_path, small_model()))]
    one, other = (next(result).label_map for result in results)
    assert np.array_equal(one, other)
    target.write_bytes(graph.replace(b'classes', b'clauses'))
    with pytest.raises(UserError, match="lacks .'classes'"):
        load(target)
    target.write_bytes(graph.replace(b'attnpool_backbones', b'somebody'))
    with pytest.raises(UserError, match='not one of attnpool export'):
        load(target)
    target.write_bytes(graph[: len(graph) // 2])
    with pytest.raises(UserError, match='openvino cannot run the file'):
        load(target)
    target.with_suffix('.bin').unlink()
    with pytest.raises(UserError, match=r'model.bin: not there'):
        load(target)


USE = """
import sys
from importlib.machinery import PathFinder

file, *blocked = sys.argv[1:]
find_spec = PathFinder.find_spec
# as if they were not installed
PathFinder.find_spec = lambda name, *more: (
    None if name.split('.')[0] in blocked else find_spec(name, *more)
)

import numpy as np
from attnpool_backbones.command_line import exit_command
from attnpool_backbones.inference import load
from attnpool_backbones.inference.prediction import Detections


def predict():
    for found in load(file)(np.zeros((30, 40, 3), np.uint8)):
        print(len(found.to_dict()['shares']))
    masks = np.ones((1, 30, 40), bool)
    Detections('', 30, 40, ['a'], np.ones((1, 4)), np.ones(1), np.zeros(1, int), masks).to_dict()


exit_command(predict)
"""


def test_the_extra_is_enough_to_predict_with_a_file(tmp_path, repo_root, monkeypatch):
    told = {}
    monkeypatch.setenv('SOURCE_DATE_EPOCH', '1735689600')  # which setup.py sets
    monkeypatch.setattr('setuptools.setup', lambda **settings: told.update(settings))
    runpy.run_path(str(repo_root / 'setup.py'))
    extras = told['extras_require']
    installed = with_dependencies([*told['install_requires'], *extras['export']])
    others = {canonicalize_name(Requirement(name).name) for name in extras['all']} - installed
    blocked = [
        name
        for name, owners in packages_distributions().items()
        if others & set(map(canonicalize_name, owners))
    ]
    assert {'mmdet', 'mmseg', 'sklearn'} <= set(blocked)
    command = [sys.executable, '-c', USE, str(write(tmp_path, small_model())), *blocked]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, '1\n'), done.stderr


def with_dependencies(names):
    """Names of distributions and of all that they require, as far as they are installed."""
    found, ahead = {'attnpool-backbones'}, list(map(Requirement, names))
    while ahead:
        requirement = ahead.pop()
        name = canonicalize_name(requirement.name)
        if name in found or requirement.marker and not requirement.marker.evaluate({'extra': ''}):
            continue
        found.add(name)
        with suppress(PackageNotFoundError):
            ahead += map(Requirement, requires(name) or ())
    return found
