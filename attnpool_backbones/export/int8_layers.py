"""Which layers of an ONNX graph compute with 8 bits."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ['LAYERS', 'eight_bit_layers', 'relus_after']

LAYERS = ('Conv', 'MatMul', 'Gemm')
_MOVING = ('Transpose', 'Reshape', 'AveragePool', 'MaxPool')
"""What leaves the scales of channels as they are."""
_ROIS = ('RoiAlign', 1)
"""An input that says where to look; all other numbers that are not whole are maps."""
PRODUCTS = 32
"""Products for each rounded value from which on 8 bits are worth it."""


def eight_bit_layers(model: Any) -> list[Any]:
    """Finds the layers that gain by 8 bits and lose little.

    With 32 bits stay: convolutions that read maps whose channels differ in scale; the last layers
    of heads, whose logits and offsets no later layer averages; and layers with few products for
    each value that is rounded, such as depthwise convolutions: rounding takes as long as it saves.

    Args:
        model: An ONNX model.

    Returns:
        Nodes of its graph.
    """
    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == 'Transpose' and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]][::-1]
    layers = [
        node for node in model.graph.node if node.op_type in LAYERS and node.input[1] in sizes
    ]
    kept = _reading_uneven_channels(model, layers) | _last_of_heads(model, layers)
    return [
        layer
        for layer in layers
        if layer.name not in kept and _products(layer, sizes[layer.input[1]]) >= PRODUCTS
    ]


def relus_after(model: Any, layers: Sequence[Any]) -> list[Any]:
    """Finds the ReLUs that read what layers give: rounding to 0 and more does what they do.

    Rounded before its ReLU, a map would spend many of the 256 values on what the ReLU takes away,
    and be rounded again after it.

    Args:
        model: An ONNX model.
        layers: Those of its nodes that compute with 8 bits.

    Returns:
        Nodes of its graph.
    """
    given = {layer.output[0] for layer in layers}
    return [node for node in model.graph.node if node.op_type == 'Relu' and node.input[0] in given]


def _products(layer: Any, weight: Sequence[int]) -> float:
    """Returns how many products a layer has for each value of its maps that is rounded.

    Args:
        layer: A node.
        weight: The size of its weight.
    """
    attributes = {attribute.name: attribute for attribute in layer.attribute}
    if layer.op_type != 'Conv':  # its output is not rounded
        turned = 'transB' in attributes and attributes['transB'].i
        return weight[0] if turned else weight[1]
    groups = attributes['group'].i if 'group' in attributes else 1
    stride = math.prod(attributes['strides'].ints) if 'strides' in attributes else 1
    return math.prod(weight) / (weight[1] * groups * stride + weight[0])


def _last_of_heads(model: Any, layers: Sequence[Any]) -> set[str]:
    """Finds the layers whose outputs reach no other layer as a map.

    Args:
        model: An ONNX model.
        layers: Its nodes with weights.

    Returns:
        Names of nodes.
    """
    from onnx import TensorProto

    known = [*model.graph.value_info, *model.graph.output]
    whole = {value.name for value in known if value.type.tensor_type.elem_type != TensorProto.FLOAT}
    names = {layer.name for layer in layers}
    read: set[str] = set()  # tensors that a layer sees
    last = set()
    for node in reversed(model.graph.node):
        if node.name in names:
            if node.output[0] not in read:
                last.add(node.name)
            read.add(node.input[0])
        elif not read.isdisjoint(node.output):
            read.update(
                name
                for slot, name in enumerate(node.input)
                if name not in whole and (node.op_type, slot) != _ROIS
            )
    return last


def _reading_uneven_channels(model: Any, layers: Sequence[Any]) -> set[str]:
    """Finds the convolutions that 8 bits would harm most.

    They read the image, a residual stream or what a norm over channels gives (stems, reductions
    between stages, the first layer of a neck): channels of such maps differ in scale, the one scale
    of the map loses the small ones, and no block that follows is added to what is right.

    Args:
        model: An ONNX model.
        layers: Its nodes with weights.

    Returns:
        Names of nodes.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    names = {layer.name for layer in layers}
    found: set[str] = set()
    after: set[str] = set()  # tensors that some layer has a part in
    for node in model.graph.node:
        follows = any(name in after for name in node.input)
        if node.name in names or follows:
            after.update(node.output)
        if node.name not in names or node.op_type != 'Conv':
            continue
        maker = makers.get(node.input[0])
        while maker is not None and maker.op_type in _MOVING:
            maker = makers.get(maker.input[0])
        if not follows or (maker is not None and _has_uneven_channels(maker, makers)):
            found.add(node.name)
    return found


def _has_uneven_channels(node: Any, makers: Mapping[str, Any]) -> bool:
    """Tells whether a node gives a residual stream or the result of a norm over channels.

    The sum of a pyramid, one part of which is made larger, is no such stream.
    """
    if node.op_type == 'Add':
        return all(makers[name].op_type != 'Resize' for name in node.input if name in makers)
    return node.op_type == 'LayerNormalization'
