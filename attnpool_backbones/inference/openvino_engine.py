"""Runs a file of OpenVINO: NAME.xml, the graph, and NAME.bin beside it, its weights."""

from pathlib import Path

import numpy as np

from attnpool_backbones.command_line import UserError, line_of
from attnpool_backbones.inference.exported_facts import KEY, Facts
from attnpool_backbones.inference.extras import require_extra
from attnpool_backbones.inference.onnx_engine import read_facts

__all__ = ['OpenVinoEngine', 'read_openvino']

LARGEST_GRAPH = 1 << 28
"""Bytes of an XML file."""


class OpenVinoEngine:
    """A compiled graph.

    Args:
        graph: Content of NAME.xml.
        weights: Content of NAME.bin.
        device: ``'cpu'``, or what OpenVINO calls its devices. Default: ``'cpu'``.

    Raises:
        UserError: If it is no graph that OpenVINO can run there.
    """

    def __init__(self, graph: bytes, weights: bytes, device: str = 'cpu') -> None:
        import openvino

        core = openvino.Core()
        if device.upper() not in core.available_devices:
            able = ', '.join(name.lower() for name in core.available_devices)
            raise UserError(f'--device {device}: this openvino runs on {able}')
        try:
            # from memory: no other file can be named
            self._model = core.read_model(graph, openvino.Tensor(np.frombuffer(weights, np.uint8)))
            self._compiled = core.compile_model(
                self._model, device.upper(), {'INFERENCE_PRECISION_HINT': 'f32'}
            )
        except RuntimeError as error:
            raise UserError(f'openvino cannot run the file: {line_of(error, last=True)}') from error
        self.outputs = [sorted(output.names)[0] for output in self._compiled.outputs]

    @property
    def metadata(self) -> str | None:
        """The entry of this package."""
        if not self._model.has_rt_info([KEY]):
            return None
        return str(self._model.get_rt_info([KEY]).value)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the graph on images B, 3, H, W float32; see :class:`OnnxEngine`."""
        try:
            values = self._compiled(images)
        except RuntimeError as error:
            raise UserError(
                f'openvino on images of {"x".join(map(str, images.shape))}: '
                f'{line_of(error, last=True)}'
            ) from error
        return {name: values[index].copy() for index, name in enumerate(self.outputs)}


def read_openvino(path: str | Path, device: str = 'cpu') -> tuple[OpenVinoEngine, Facts]:
    """Opens a file of ``attnpool export --to openvino``, which may be a stranger's.

    Args:
        path: NAME.xml; NAME.bin has to be beside it.
        device: Where it is to run.

    Raises:
        UserError: If it is no such file.
    """
    path = Path(path)
    for file in (path, path.with_suffix('.bin')):
        if not file.is_file():
            raise UserError(f'{file.absolute()}: not there, or no ordinary file')
    require_extra('openvino')
    if path.stat().st_size > LARGEST_GRAPH:
        raise UserError(f'{path}: {path.stat().st_size} bytes, at most {LARGEST_GRAPH} may be')
    engine = OpenVinoEngine(path.read_bytes(), path.with_suffix('.bin').read_bytes(), device)
    text = engine.metadata
    if text is None:
        raise UserError(f'{path}: a file of OpenVINO, but not one of attnpool export')
    return engine, read_facts(path, text, set(engine.outputs))
