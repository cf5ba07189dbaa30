"""What `mmcv._ext` has, in plain torch: the functions that `mmcv.ops` calls, by their names.

They take what mmcv's compiled functions take, and write their results where these do. The operators
are in :mod:`attnpool_backbones.ops`.
"""

import functools
from collections.abc import Callable

import torch
from mmengine.logging import print_log
from torch import Tensor

from attnpool_backbones.compatibility import BUILD_MMCV
from attnpool_backbones.ops import focal_loss, roi_align
from attnpool_backbones.ops import nms as nms_operator
from attnpool_backbones.version import __version__

SERVED: list[str] = []
"""The operators that are there, by mmcv's names."""


class MissingOperator(NotImplementedError):
    """An operator of mmcv that is only there compiled."""


def __getattr__(name: str) -> Callable:
    """Stands in for the operators that are not there: to call one tells how to get it."""
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args, **kwargs):
        raise MissingOperator(
            f"mmcv's operator {name!r} is not among those that attnpool_backbones {__version__} "
            'computes in plain torch. The compiled operators have it: `OPS=compiled make setup` in '
            f'a clone, or {BUILD_MMCV}'
        )

    return missing


def _serve(function: Callable) -> Callable:
    SERVED.append(function.__name__)

    @functools.wraps(function)
    def call(*args, **kwargs):
        if not torch.compiler.is_compiling():
            _say_who_serves()
        with torch.no_grad():
            return function(*args, **kwargs)

    return call


@functools.cache
def _say_who_serves() -> None:
    print_log(
        f'operators of mmcv: in plain torch, by attnpool_backbones {__version__}, as no compiled '
        'mmcv._ext is installed',
        logger='current',
    )


def get_compiler_version() -> str:
    """Stands where mmcv tells its compiler; reports of environments show it."""
    return f'none, operators in plain torch (attnpool_backbones {__version__})'


def get_compiling_cuda_version() -> str:
    """Stands where mmcv tells the CUDA that it was compiled with."""
    return 'none'


# ------------------------------------------------------------------ boxes


@_serve
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """See :func:`attnpool_backbones.ops.nms.nms`."""
    return nms_operator.nms(boxes, scores, iou_threshold, offset)


# ------------------------------------------------------------------ regions of interest


@_serve
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Writes ``output``, and in mode 0 (maximum) ``argmax_y`` and ``argmax_x``."""
    pooling = roi_align.Pooling(
        (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned
    )
    if roi_align.POOL_MODES[pool_mode] == 'avg':
        roi_align.average(input, rois, output, pooling)
    else:
        roi_align.maximum(input, rois, output, argmax_y, argmax_x, pooling)


@_serve
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Adds to ``grad_input``."""
    pooling = roi_align.Pooling(
        (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned
    )
    if roi_align.POOL_MODES[pool_mode] == 'avg':
        roi_align.average_backward(grad_output, rois, grad_input, pooling)
    else:
        roi_align.maximum_backward(grad_output, rois, argmax_y, argmax_x, grad_input)


# ------------------------------------------------------------------ losses; an empty weight: none


@_serve
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes ``output``."""
    factors = gamma, alpha, weight if len(weight) else None
    output.copy_(focal_loss.sigmoid_focal_loss(input, target, *factors))


@_serve
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes ``grad_input``."""
    factors = gamma, alpha, weight if len(weight) else None
    grad_input.copy_(focal_loss.sigmoid_gradient(input, target, *factors))


@_serve
def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes ``output``; ``input`` are probabilities."""
    factors = gamma, alpha, weight if len(weight) else None
    output.copy_(focal_loss.softmax_loss(input, target, *factors))


@_serve
def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Writes ``grad_input``; ``input`` are probabilities, ``buff`` is room that is not needed."""
    factors = gamma, alpha, weight if len(weight) else None
    grad_input.copy_(focal_loss.softmax_gradient(input, target, *factors))
