"""Which layers compute with 8 bits."""

import numpy as np
import pytest

from attnpool_backbones.export.int8 import quantise
from attnpool_backbones.inference.onnx_engine import OnnxEngine

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

CHANNELS = 4
QUANTISED = {'inner', 'after_relu', 'after_pyramid', 'linear'}
"""Of the layers of :func:`graph`."""


def graph():
    """A stem, a block with a shortcut, norms, and a pyramid of two maps; each layer by its name."""
    rng = np.random.default_rng(0)
    weights, nodes = {}, []

    def node(kind, inputs, output, **attributes):
        nodes.append(onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(map_, name, inputs=CHANNELS):
        weights[f'{name}_w'] = rng.normal(size=(CHANNELS, inputs, 1, 1)).astype(np.float32)
        return node('Conv', [map_, f'{name}_w'], name)

    weights['scale'] = np.ones(6, np.float32)
    weights['square'] = rng.normal(size=(6, 6)).astype(np.float32)
    weights['sizes'] = np.array([1, 1, 2, 2], np.float32)
    stem = node('Relu', [conv('images', 'stem', 3)], 'relu')
    stream = node('Add', [stem, conv(stem, 'inner')], 'stream')
    pooled = node('MaxPool', [stream], 'pooled', kernel_shape=[2, 2], strides=[2, 2])
    reduced = conv(pooled, 'after_stream')
    linear = node('MatMul', [conv(node('Relu', [stream], 'relu2'), 'after_relu'), 'square'],
                  'linear')  # fmt: skip
    normed = node('LayerNormalization', [linear, 'scale'], 'normed', axis=-1)
    lateral = conv(normed, 'after_norm')
    larger = node('Resize', [reduced, '', 'sizes'], 'larger')
    conv(node('Add', [lateral, larger], 'sum'), 'after_pyramid')
    shape = [1, 3, 6, 6]
    made = onnx.helper.make_graph(
        nodes,
        'graph',
        [onnx.helper.make_tensor_value_info('images', onnx.TensorProto.FLOAT, shape)],
        [
            onnx.helper.make_tensor_value_info(
                'after_pyramid', onnx.TensorProto.FLOAT, [1, CHANNELS, 6, 6]
            )
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = onnx.helper.make_model(
        made, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=10
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def test_convolutions_of_uneven_channels_keep_32_bits():
    images = np.random.default_rng(1).normal(size=(1, 3, 6, 6)).astype(np.float32)
    content = graph().SerializeToString()
    small = quantise(content, [images])
    makers = {
        name: node for node in onnx.load_from_string(small).graph.node for name in node.output
    }
    layers = [node for node in makers.values() if node.op_type in ('Conv', 'MatMul')]
    assert len(layers) == 7
    found = {
        node.name
        for node in layers
        if makers.get(node.input[0], node).op_type == 'DequantizeLinear'
    }
    assert found == QUANTISED
    # a linear layer is added to a residual stream as it is
    (norm,) = (node for node in makers.values() if node.op_type == 'LayerNormalization')
    assert makers[norm.input[0]].op_type in ('MatMul', 'Add')
    whole, less = (OnnxEngine(file)(images)['after_pyramid'] for file in (content, small))
    assert 0 < abs(whole - less).max() < 0.1 * abs(whole).max()
