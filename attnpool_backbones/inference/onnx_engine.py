"""Runs an ONNX file with onnxruntime."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from attnpool_backbones.command_line import UserError, line_of
from attnpool_backbones.inference.exported_facts import KEY, Facts
from attnpool_backbones.inference.extras import require_extra

__all__ = ['OnnxEngine', 'read_facts', 'read_onnx']

LARGEST = (1 << 31) - 1
"""Bytes of a file, which ONNX holds in one protocol buffer."""
OUTPUTS = dict(
    detection=({'boxes', 'scores', 'labels'}, {'boxes', 'scores', 'labels', 'masks'}),
    segmentation=({'labels', 'logits'},),
)
"""What a graph gives, by task."""


class OnnxEngine:
    """A session of onnxruntime.

    Args:
        content: Of the file.
        device: ``'cpu'``, ``'cuda'`` or ``'cuda:1'``. Default: ``'cpu'``.

    Raises:
        UserError: If it is no model that onnxruntime can run there.
    """

    def __init__(self, content: bytes, device: str = 'cpu') -> None:
        import onnxruntime

        provider, _, number = device.partition(':')
        providers = dict(cpu='CPUExecutionProvider', cuda='CUDAExecutionProvider')
        there = onnxruntime.get_available_providers()
        if providers.get(provider) not in there:
            able = [name for name, value in providers.items() if value in there]
            raise UserError(
                f'--device {device}: this onnxruntime runs on {", ".join(able)}; for cuda install '
                'onnxruntime-gpu'
            )
        settings = {'device_id': number or '0'} if provider == 'cuda' else {}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # threads that wait for work take the cores of those that read and draw
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=[(providers[provider], settings)]
            )
        except Exception as error:  # onnxruntime's errors have no common class
            raise UserError(f'onnxruntime cannot run the file: {line_of(error)}') from error
        # onnxruntime falls back to the CPU where it cannot start what it was built for
        if providers[provider] not in self._session.get_providers():
            raise UserError(
                f'--device {device}: onnxruntime cannot use it here, as without a GPU, its driver '
                'or the CUDA libraries of onnxruntime-gpu; --device cpu can be used'
            )
        self.input = self._session.get_inputs()[0].name
        self.outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the graph.

        Args:
            images: B, 3, H, W float32.

        Returns:
            Its outputs by name.

        Raises:
            UserError: If it does not take them.
        """
        try:
            values = self._session.run(None, {self.input: images})
        except Exception as error:  # onnxruntime's errors have no common class
            raise UserError(
                f'onnxruntime on images of {"x".join(map(str, images.shape))}: {line_of(error)}'
            ) from error
        return dict(zip(self.outputs, values, strict=True))


def read_onnx(path: str | Path) -> tuple[bytes, Facts]:
    """Reads an ONNX file of this package, which may be a stranger's.

    Nothing of it is run, and no other file is read: one that asks for data beside it is refused.

    Args:
        path: Of the file.

    Returns:
        Its content, and what it says about itself.

    Raises:
        UserError: If it is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path.absolute()}: not there, or no ordinary file')
    require_extra('export')
    import onnx
    from google.protobuf.message import DecodeError

    size = path.stat().st_size
    if size > LARGEST:
        raise UserError(f'{path}: {size} bytes, an ONNX file has at most {LARGEST}')
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise UserError(f'{path}: no ONNX file, or damaged ({line_of(error)})') from error
    for name in _outside(model):
        raise UserError(
            f'{path}: the values of {name[:80]!r} are said to be in another file; attnpool export '
            'writes everything into one, and no other is read'
        )
    entries = [entry.value for entry in model.metadata_props if entry.key == KEY]
    if len(entries) != 1:
        raise UserError(
            f'{path}: an ONNX file, but not one of attnpool export: it does not say how images are '
            'prepared and which classes there are'
        )
    if len(model.graph.input) != 1:
        raise UserError(f'{path}: has {len(model.graph.input)} inputs, not one')
    return content, read_facts(path, entries[0], {output.name for output in model.graph.output})


def read_facts(path: Path, text: str, given: set[str]) -> Facts:
    """Reads what a file says about itself; raises UserError if its graph gives something else."""
    try:
        facts = Facts.from_json(text)
    except (ValueError, TypeError) as error:
        raise UserError(f'{path}: {error}') from error
    if given not in OUTPUTS[facts.task]:
        raise UserError(f'{path}: its outputs {sorted(given)} are not those of {facts.task}')
    if 'masks' in given and facts.mask is None:
        raise UserError(f'{path}: masks without a threshold')
    return facts


def _outside(model: Any) -> Iterator[str]:
    """Yields the names of tensors whose values are in other files, wherever they are."""
    import onnx

    def tensors(graph: Any) -> Iterator[Any]:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from of_nodes(graph.node)

    def of_nodes(nodes: Any) -> Iterator[Any]:
        for node in nodes:
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)
                for graph in (attribute.g, *attribute.graphs):
                    yield from tensors(graph)

    def everything() -> Iterator[Any]:
        yield from tensors(model.graph)
        for function in model.functions:
            yield from of_nodes(function.node)

    for tensor in everything():
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            yield tensor.name
