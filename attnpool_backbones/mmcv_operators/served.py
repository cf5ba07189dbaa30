"""The operators that are there, and the error of one that is not."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from mmengine.logging import print_log

from attnpool_backbones.version import __version__

__all__ = ['SERVED', 'MissingOperator', 'serve']

SERVED: dict[str, Callable] = {}
"""The operators that are there, by mmcv's names."""


class MissingOperator(NotImplementedError):
    """An operator of mmcv that is only there compiled."""


def serve(function: Callable) -> Callable:
    """Makes a function answer as mmcv's compiled one: without gradients, which are its callers'."""

    @functools.wraps(function)
    def call(*args, **kwargs) -> Any:
        if not torch.compiler.is_compiling():
            _say_who_serves()
        with torch.no_grad():
            return function(*args, **kwargs)

    SERVED[function.__name__] = call
    return call


@functools.cache
def _say_who_serves() -> None:
    print_log(
        f'operators of mmcv: in plain torch, by attnpool_backbones {__version__}, as no compiled '
        'mmcv._ext is installed',
        logger='current',
    )
