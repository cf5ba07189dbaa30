"""From an ONNX file to a file of OpenVINO."""

import tempfile
from pathlib import Path

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.command_line import UserError, line_of
from attnpool_backbones.inference.exported_facts import KEY, Facts

__all__ = ['to_openvino', 'write_openvino']


def to_openvino(content: bytes, facts: Facts) -> tuple[bytes, bytes]:
    """Converts a file, with all of its weights in 32 bits.

    Args:
        content: Of the ONNX file.
        facts: What is written into it.

    Returns:
        The content of NAME.xml and of NAME.bin.

    Raises:
        UserError: If OpenVINO does not know an operator.
    """
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, 'model.onnx'), Path(folder, 'model.xml')
        source.write_bytes(content)
        try:
            model = openvino.convert_model(source)
        except Exception as error:  # openvino's errors have no common class
            reason = line_of(error, last=True)
            raise UserError(f'openvino cannot convert the model: {reason}') from error
        model.set_rt_info(facts.to_json(), [KEY])
        openvino.save_model(model, target, compress_to_fp16=False)
        return target.read_bytes(), target.with_suffix('.bin').read_bytes()


def write_openvino(graph: bytes, weights: bytes, target: Path) -> None:
    """Writes NAME.xml last, so that there is never a graph with the weights of another one."""
    target.unlink(missing_ok=True)
    write_atomically(weights, target.with_suffix('.bin'))
    write_atomically(graph, target)
