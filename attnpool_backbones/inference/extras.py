"""Packages that only some commands need."""

from importlib import import_module

from attnpool_backbones.command_line import UserError

__all__ = ['EXTRAS', 'require_extra']

EXTRAS = dict(export=('onnx', 'onnxruntime'), openvino=('openvino',))
"""Extra of this package -> the modules that files of it need to be run."""


def require_extra(extra: str, *more: str) -> None:
    """Raises UserError unless the modules of an extra, and ``more`` of it, can be imported.

    Args:
        extra: A key of :data:`EXTRAS`.
        *more: Modules that are needed to write such files only.
    """
    for name in (*EXTRAS[extra], *more):
        try:
            import_module(name)
        except ImportError as error:
            raise UserError(
                f'this kind of file needs {name}, which cannot be imported ({error}): '
                f'pip install {" ".join((*EXTRAS[extra], *more))}'
            ) from error
