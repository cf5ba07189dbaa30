"""A recorded graph as a file of ``torch.export.save``."""

import io
from collections.abc import Callable

import numpy as np
import torch

from attnpool_backbones.inference.exported_facts import KEY, Facts

__all__ = ['FACTS_FILE', 'run_program', 'to_pt2']

FACTS_FILE = f'{KEY}.json'
"""Name of the extra file that says what the graph does not."""


def to_pt2(program: torch.export.ExportedProgram, facts: Facts) -> bytes:
    """Writes a recorded graph; whoever loads it imports ``attnpool_backbones.export.operators``.

    Args:
        program: Of :func:`~attnpool_backbones.export.graph.trace`.
        facts: What is written beside it.
    """
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={FACTS_FILE: facts.to_json()})
    return buffer.getvalue()


def run_program(
    content: bytes, outputs: tuple[str, ...]
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Loads what :func:`to_pt2` wrote. Only for own files: torch runs code of those it loads.

    Args:
        content: Of the file.
        outputs: Names of what the graph returns.

    Returns:
        Runs the graph on float32 images B, 3, H, W.
    """
    module = torch.export.load(io.BytesIO(content)).module()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            values = module(torch.from_numpy(images))
        return {name: value.numpy() for name, value in zip(outputs, values, strict=True)}

    return run
