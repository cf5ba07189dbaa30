"""Which layers compute with 8 bits."""

import numpy as np
import pytest

from attnpool_backbones.command_line import UserError
from attnpool_backbones.export.int8 import keep_of, quantise
from attnpool_backbones.inference.onnx_engine import OnnxEngine
from attnpool_backbones.inference.prediction import Detections

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

CHANNELS = 64
WIDTH = 32
QUANTISED = {'inner', 'after_relu', 'after_pyramid', 'linear', 'of_regions'}
"""Of the layers of :func:`graph`."""


def graph():
    """A stem, a block, norms, a pyramid of two maps, and two heads; each layer by its name.

    The first head says where the second one looks.
    """
    rng = np.random.default_rng(0)
    weights, nodes = {}, []

    def node(kind, inputs, output, **attributes):
        nodes.append(onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(map_, name, inputs=CHANNELS, outputs=CHANNELS, **attributes):
        size = (outputs, inputs, 1, 1)
        weights[f'{name}_w'] = (rng.normal(size=size) / inputs**0.5).astype(np.float32)
        return node('Conv', [map_, f'{name}_w'], name, **attributes)

    weights['scale'] = np.ones(WIDTH, np.float32)
    weights['square'] = rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)
    weights['bias'] = rng.normal(size=WIDTH).astype(np.float32)
    weights['sizes'] = np.array([1, 1, 2, 2], np.float32)
    weights['image'] = np.zeros(1, np.int64)
    weights['corners'] = np.array([0, 0, 6, 6], np.float32)
    stem = node('Relu', [conv('images', 'stem', 3)], 'relu')
    stream = node('Add', [stem, conv(stem, 'inner')], 'stream')
    pooled = node('MaxPool', [stream], 'pooled', kernel_shape=[2, 2], strides=[2, 2])
    reduced = conv(pooled, 'after_stream')
    single = conv(node('Relu', [stream], 'relu2'), 'depthwise', 1, group=CHANNELS)
    map_ = node('Relu', [conv(single, 'after_relu')], 'relu3')
    linear = node('Add', [node('MatMul', [map_, 'square'], 'linear'), 'bias'], 'biased')
    normed = node('LayerNormalization', [linear, 'scale'], 'normed', axis=-1)
    lateral = conv(normed, 'after_norm')
    larger = node('Resize', [reduced, '', 'sizes'], 'larger')
    level = conv(node('Add', [lateral, larger], 'sum'), 'after_pyramid')
    moved = node('ReduceMean', [conv(level, 'proposals')], 'moved', axes=[0, 1, 2, 3], keepdims=0)
    boxes = node('Unsqueeze', [node('Add', [moved, 'corners'], 'box'), 'image'], 'boxes')
    regions = node('RoiAlign', [level, boxes, 'image'], 'regions', output_height=2, output_width=2)
    conv(node('Relu', [conv(regions, 'of_regions')], 'relu4'), 'logits')
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, CHANNELS, 6, WIDTH])
        for name in ('linear', 'biased')
    ]
    made = onnx.helper.make_graph(
        nodes,
        'graph',
        [onnx.helper.make_tensor_value_info('images', onnx.TensorProto.FLOAT, [1, 3, 6, WIDTH])],
        [onnx.helper.make_tensor_value_info('logits', onnx.TensorProto.FLOAT, [1, CHANNELS, 2, 2])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
        value_info=values,
    )
    model = onnx.helper.make_model(
        made, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=10
    )
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope='module')
def files():
    """The graph's content with 32 and with 8 bits, and an image."""
    image = np.random.default_rng(1).normal(size=(1, 3, 6, WIDTH)).astype(np.float32)
    content = graph().SerializeToString()
    return content, quantise(content, [image]), image


@pytest.fixture(scope='module')
def small(files):
    """The graph of the file of 8 bits."""
    return onnx.load_from_string(files[1]).graph


@pytest.fixture(scope='module')
def makers(small):
    """Its tensors -> the nodes that make them."""
    return {name: node for node in small.node for name in node.output}


def test_layers_that_gain_and_lose_little_have_8_bits(files, makers):
    layers = [node for node in makers.values() if node.op_type in ('Conv', 'MatMul')]
    assert len(layers) == len(QUANTISED) + 6
    found = {
        node.name
        for node in layers
        if makers.get(node.input[1], node).op_type == 'DequantizeLinear'
    }
    assert found == QUANTISED
    content, less, image = files
    whole, less = (OnnxEngine(file)(image)['logits'] for file in (content, less))
    assert 0 < abs(whole - less).max() < 0.1 * abs(whole).max()


def test_a_map_is_rounded_once_after_its_relu(small, makers):
    assert {node.name for node in small.node if node.op_type == 'Relu'} == {'relu', 'relu2'}
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in small.initializer}
    zeros = {
        makers[node.input[0]].name: int(constants[node.input[2]])
        for node in small.node
        if node.op_type == 'QuantizeLinear' and node.input[0] in makers
    }
    # rounding from 0 on is the ReLU; other maps have values below
    assert zeros['after_relu'] == zeros['of_regions'] == 0 < zeros['inner']


def test_linear_layers_run_with_8_bits(files, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / 'optimised.onnx')
    options.log_severity_level = 3
    onnxruntime.InferenceSession(files[1], options, providers=['CPUExecutionProvider'])
    run = {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}
    # a bias of one dimension would have made it a Gemm of 32 bits
    assert 'MatMulIntegerToFloat' in run and not run & {'Gemm', 'MatMul', 'FusedMatMul'}


def test_no_layer_worth_it():
    model = graph()
    last = next(node for node in model.graph.node if node.name == 'stem')
    del model.graph.node[:]
    model.graph.node.append(last)
    model.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info('stem', onnx.TensorProto.FLOAT, [1, CHANNELS, 6, WIDTH])
    )
    with pytest.raises(UserError, match='--int8: no layer of the model is worth 8 bits'):
        quantise(model.SerializeToString(), [])


def objects(*scores, label=0):
    """So many detections at one place."""
    boxes = np.tile(np.array([[2, 2, 12, 12]], np.float32), (len(scores), 1))
    labels = np.full(len(scores), label)
    return Detections('', 20, 20, ['a', 'b'], boxes, np.array(scores, np.float32), labels)


@pytest.mark.parametrize(
    'before, after, kept',
    [
        (objects(0.9, 0.5), objects(0.8, 0.4), 2),
        (objects(0.9, 0.2), objects(0.31), 1),
        # one that is not told any more, and one that stands for one only
        (objects(0.9), objects(0.29), 0),
        (objects(0.9, 0.8), objects(0.9), 1),
        (objects(0.9), objects(0.9, label=1), 0),
        (objects(0.9), objects(), 0),
        (objects(), objects(0.9), 0),
    ],
)
def test_objects_that_both_files_tell(before, after, kept):
    told = keep_of([before], [after])
    assert (told.found, told.total) == (kept, (before.scores >= 0.3).sum())
