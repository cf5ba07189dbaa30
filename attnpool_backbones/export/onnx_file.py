"""From a recorded graph to the bytes of an ONNX file."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from attnpool_backbones.command_line import UserError, line_of
from attnpool_backbones.inference.exported_facts import KEY, Facts
from attnpool_backbones.inference.onnx_engine import LARGEST

__all__ = ['INPUT', 'to_onnx', 'with_facts']

INPUT = 'images'
"""Name of a graph's input."""


def to_onnx(program: torch.export.ExportedProgram, outputs: Sequence[str], facts: Facts) -> bytes:
    """Writes a recorded graph in ONNX.

    Args:
        program: Of :func:`~attnpool_backbones.export.graph.trace`.
        outputs: Their names.
        facts: What is written into the metadata.

    Returns:
        The content of the file.

    Raises:
        UserError: If ONNX cannot say it, or the file would be too large.
    """
    from attnpool_backbones.export.onnx_operators import translations

    with _quiet():
        try:
            written = torch.onnx.export(
                program,
                (),
                dynamo=True,
                custom_translation_table=translations(),
                input_names=[INPUT],
                output_names=list(outputs),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise UserError(f'the model cannot be written in ONNX: {line_of(error)}') from error
    model = written.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where in which source file it came from
    if model.ByteSize() > LARGEST:
        raise UserError(
            f'the file would have {model.ByteSize()} bytes, an ONNX file has at most {LARGEST}'
        )
    return with_facts(model.SerializeToString(), facts)


def with_facts(content: bytes, facts: Facts) -> bytes:
    """Replaces the metadata of a file by that of this package."""
    import onnx

    model = onnx.load_model_from_string(content)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: facts.to_json()})
    model.producer_name, model.doc_string = 'attnpool_backbones', ''
    return model.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what the exporter says about packages that no model here needs."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
