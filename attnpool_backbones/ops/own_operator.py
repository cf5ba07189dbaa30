"""Operators that PyTorch knows by name, as torch.compile and torch.export show them."""

import collections.abc
import typing
from collections.abc import Callable

import torch


def own_operator(name: str) -> Callable[[Callable], torch.library.CustomOpDef]:
    """Makes a function an operator of PyTorch, ``attnpool_backbones::NAME``.

    It may not change its arguments. What it does in graphs and in backward passes is registered
    on the result, see :func:`torch.library.custom_op`.

    Args:
        name: Of the operator.
    """

    def declare(function: Callable) -> torch.library.CustomOpDef:
        # PyTorch before 2.7 reads the sequences of `typing` only
        function.__annotations__ = {
            key: typing.Sequence[typing.get_args(kind)]  # noqa: UP006
            if typing.get_origin(kind) is collections.abc.Sequence
            else kind
            for key, kind in function.__annotations__.items()
        }
        return torch.library.custom_op(f'attnpool_backbones::{name}', mutates_args=())(function)

    return declare
