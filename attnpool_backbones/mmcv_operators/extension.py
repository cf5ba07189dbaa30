"""What `mmcv._ext` has, in plain torch: the functions that `mmcv.ops` calls, by their names.

They take what mmcv's compiled functions take, and write their results where these do. The operators
are in :mod:`attnpool_backbones.ops`.
"""

from collections.abc import Callable
from typing import NoReturn

from attnpool_backbones.compatibility import BUILD_MMCV
from attnpool_backbones.mmcv_operators import (  # noqa: F401  each serves some
    attention_functions,
    box_functions,
    convolution_functions,
    loss_functions,
    region_functions,
)
from attnpool_backbones.mmcv_operators.served import SERVED, MissingOperator
from attnpool_backbones.version import __version__

globals().update(SERVED)


def __getattr__(name: str) -> Callable:
    """Stands in for the operators that are not there: to call one tells how to get it."""
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args, **kwargs) -> NoReturn:
        raise MissingOperator(
            f"mmcv's operator {name!r} is not among those that attnpool_backbones {__version__} "
            'computes in plain torch. The compiled operators have it: `OPS=compiled make setup` in '
            f'a clone, or {BUILD_MMCV}'
        )

    return missing


def get_compiler_version() -> str:
    """Stands where mmcv tells its compiler; reports of environments show it."""
    return f'none, operators in plain torch (attnpool_backbones {__version__})'


def get_compiling_cuda_version() -> str:
    """Stands where mmcv tells the CUDA that it was compiled with."""
    return 'none'
