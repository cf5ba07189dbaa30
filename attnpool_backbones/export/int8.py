"""Weights and maps of 8 bits by onnxruntime's static quantisation."""

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attnpool_backbones.command_line import UserError
from attnpool_backbones.export.onnx_file import INPUT
from attnpool_backbones.inference.prediction import Detections, Segmentation

__all__ = ['Kept', 'keep_of', 'quantise', 'seconds']

_KINDS = ('Conv', 'MatMul', 'Gemm')
_MOVING = ('Transpose', 'Reshape', 'AveragePool', 'MaxPool')
"""What leaves the scales of channels as they are."""
SURE = 0.3
"""Score from which on an object is looked at when the two files are compared."""
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
    largest value on the images. Linear layers give 32 bits, so that what is added up over blocks is
    rounded nowhere. Products of two maps, as in attention, all that follows the heads, and the
    convolutions of :func:`_sensitive` stay as they are.

    Args:
        content: An ONNX file.
        images: Inputs of its graph, B, 3, H, W float32 each.

    Returns:
        The new file, with the same metadata.

    Raises:
        UserError: If onnxruntime cannot do it.
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
    layers = list(_with_weights(model))
    kept = _sensitive(model, layers)
    names = [layer.name for layer in layers if layer.name not in kept]
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
                op_types_to_quantize=list(_KINDS),
                nodes_to_quantize=names,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options=dict(OpTypesToExcludeOutputQuantization=['MatMul']),
            )
        except Exception as error:  # onnxruntime's errors have no common class
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f'--int8: onnxruntime cannot quantise the model: {reason}') from error
        finally:
            logger.setLevel(level)
        quantised = onnx.load(str(target))
    del quantised.metadata_props[:]
    quantised.metadata_props.extend(model.metadata_props)
    quantised.producer_name = model.producer_name
    return quantised.SerializeToString()


def _with_weights(model: Any) -> Iterator[Any]:
    """Yields the convolutions and products one of whose factors is a weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    # a weight may be turned first
    for node in model.graph.node:
        if node.op_type in ('Transpose', 'Reshape') and node.input[0] in weights:
            weights.update(node.output)
    for node in model.graph.node:
        if node.op_type in _KINDS and any(name in weights for name in node.input[:2]):
            yield node


def _sensitive(model: Any, layers: Sequence[Any]) -> set[str]:
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


def keep_of(
    ones: Sequence[Detections | Segmentation], others: Sequence[Detections | Segmentation]
) -> Kept:
    """Counts what a file of 8 bits tells of what the one of 32 bits does."""
    found = total = 0
    for one, other in zip(ones, others, strict=True):
        if isinstance(one, Segmentation):
            total += one.label_map.size
            found += int((one.label_map == other.label_map).sum())
            continue
        one = one.select(one.scores >= SURE)
        total += len(one)
        overlaps = _overlaps(one.boxes, other.boxes)
        same = (overlaps >= SAME) & (one.labels[:, None] == other.labels)
        found += int(same.any(1).sum())
    return Kept(found, total)


def _overlaps(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    import torch

    from attnpool_backbones.ops.nms import box_table, overlaps

    tables = [box_table(torch.from_numpy(boxes), 0) for boxes in (ones, others)]
    return overlaps(*tables, 0).nan_to_num(0).numpy()


def seconds(
    engines: Sequence[Callable[[np.ndarray], Mapping[str, np.ndarray]]],
    images: np.ndarray,
    rounds: int = 5,
) -> list[float]:
    """Measures graphs in turns.

    Args:
        engines: That run them.
        images: B, 3, H, W float32.
        rounds: Of each, after one that does not count.

    Returns:
        Median seconds of each.
    """
    times: list[list[float]] = [[] for _ in engines]
    for number in range(rounds + 1):
        for engine, own in zip(engines, times, strict=True):
            started = time.perf_counter()
            engine(images)
            if number:
                own.append(time.perf_counter() - started)
    return [statistics.median(own) for own in times]
