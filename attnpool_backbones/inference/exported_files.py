"""Opens exported files by their kind."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from attnpool_backbones.inference.exported_facts import Facts
from attnpool_backbones.inference.onnx_engine import OnnxEngine, read_onnx
from attnpool_backbones.inference.openvino_engine import read_openvino

__all__ = ['EXPORTED', 'read_exported']


def _open_onnx(
    path: str | Path, device: str
) -> tuple[Callable[[np.ndarray], Mapping[str, np.ndarray]], Facts]:
    content, facts = read_onnx(path)
    return OnnxEngine(content, device), facts


EXPORTED = {'.onnx': _open_onnx, '.xml': read_openvino}
"""Ending of a file -> what opens it."""


def read_exported(
    path: str | Path, device: str = 'cpu'
) -> tuple[Callable[[np.ndarray], Mapping[str, np.ndarray]], Facts]:
    """Opens an exported file, which may be a stranger's.

    Args:
        path: With one of the endings of :data:`EXPORTED`.
        device: Where it is to run.

    Returns:
        What runs its graph, and what it says about itself.

    Raises:
        UserError: If it cannot be used.
    """
    return EXPORTED[Path(path).suffix](path, device)
