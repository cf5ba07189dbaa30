"""Weights and maps of 8 bits by onnxruntime's static quantisation."""

import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnpool_backbones.command_line import UserError, line_of
from attnpool_backbones.export.int8_layers import LAYERS, eight_bit_layers, relus_after
from attnpool_backbones.export.onnx_file import INPUT
from attnpool_backbones.inference.prediction import Detections, Segmentation
from attnpool_backbones.ops.box_overlaps import box_overlaps

__all__ = ['Kept', 'keep_of', 'quantise']

SURE = 0.3
"""Score from which on an object is told, as by ``attnpool predict``."""
SAME = 0.5
"""Overlap over union from which on two boxes are one object's."""


@dataclass(frozen=True)
class Kept:
    """What is left of the predictions.

    Args:
        found: Objects, or pixels, that both files tell.
        total: Of the file of 32 bits.
    """

    found: int
    total: int

    @property
    def share(self) -> float:
        """Of the objects or pixels, 1 if there are none."""
        return self.found / self.total if self.total else 1.0


def quantise(content: bytes, images: Iterable[np.ndarray]) -> bytes:
    """Makes convolutions and linear layers compute with 8 bits.

    Weights have a scale for each output channel; maps have one scale each, from the smallest and
    largest value on the images, after a ReLU where one follows. Linear layers give 32 bits, so that
    what is added up over blocks is rounded nowhere. Products of two maps, as in attention, all that
    follows the heads, and the layers that
    :func:`~attnpool_backbones.export.int8_layers.eight_bit_layers` leaves out stay as they are.

    Args:
        content: An ONNX file.
        images: Inputs of its graph, B, 3, H, W float32 each.

    Returns:
        The new file, with the same metadata.

    Raises:
        UserError: If onnxruntime cannot do it, or no layer gains by it.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT: image}

    model = onnx.load_model_from_string(content)
    _part_biases(model)
    layers = eight_bit_layers(model)
    if not layers:  # onnxruntime would take an empty list for all
        raise UserError('--int8: no layer of the model is worth 8 bits; export it without')
    names = [node.name for node in (*layers, *relus_after(model, layers))]
    logger, level = logging.getLogger(), logging.getLogger().level
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, 'int8.onnx')
        logger.setLevel(logging.ERROR)  # it advises a preparation that no shape here allows
        try:
            quantize_static(
                model,
                target,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*LAYERS, 'Relu'],
                nodes_to_quantize=names,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options=dict(OpTypesToExcludeOutputQuantization=['MatMul', 'Gemm']),
            )
        except Exception as error:  # onnxruntime's errors have no common class
            raise UserError(
                f'--int8: onnxruntime cannot quantise the model: {line_of(error)}'
            ) from error
        finally:
            logger.setLevel(level)
        quantised = onnx.load(str(target))
    del quantised.metadata_props[:]
    quantised.metadata_props.extend(model.metadata_props)
    quantised.producer_name = model.producer_name
    return quantised.SerializeToString()


def _part_biases(model: Any) -> None:
    """Keeps onnxruntime from making a product and the bias after it one operator of 32 bits.

    It does so before it looks for products of 8 bits, for biases of one dimension.
    """
    from onnx import numpy_helper

    graph = model.graph
    biases = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 1}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    products = {
        node.output[0]
        for node in graph.node
        if node.op_type == 'MatMul' and ranks.get(node.output[0], 0) > 2
    }
    for node in graph.node:
        if node.op_type != 'Add' or products.isdisjoint(node.input):
            continue
        for slot, name in enumerate(node.input):
            if name in biases:
                node.input[slot] = f'{node.name}_bias'
                value = numpy_helper.to_array(biases[name])[None, None]
                graph.initializer.append(numpy_helper.from_array(value, node.input[slot]))
    used = {name for node in graph.node for name in node.input}
    for name in biases.keys() - used:
        graph.initializer.remove(biases[name])


def keep_of(
    ones: Iterable[Detections | Segmentation], others: Iterable[Detections | Segmentation]
) -> Kept:
    """Counts what a file of 8 bits tells of what the one of 32 bits does.

    An object is kept if the other file is sure, too, of one of its class at its place; that one
    stands for no other.
    """
    found = total = 0
    for one, other in zip(ones, others, strict=True):
        if isinstance(one, Segmentation):
            total += one.label_map.size
            found += int((one.label_map == other.label_map).sum())
            continue
        one, other = (objects.select(objects.scores >= SURE) for objects in (one, other))
        total += len(one)
        found += _count_pairs(one, other)
    return Kept(found, total)


def _count_pairs(one: Detections, other: Detections) -> int:
    """Counts objects of a class at the same place, the surest first, each in one pair."""
    boxes = (torch.from_numpy(found.boxes) for found in (one, other))
    overlaps = box_overlaps(*boxes).nan_to_num(0).numpy()
    overlaps[one.labels[:, None] != other.labels] = 0
    pairs = 0
    for own in overlaps:
        if own.max(initial=0) >= SAME:
            pairs += 1
            overlaps[:, own.argmax()] = 0
    return pairs
