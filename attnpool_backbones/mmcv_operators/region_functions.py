"""mmcv's functions that pool regions of interest, in plain torch."""

import torch
from torch import Tensor

from attnpool_backbones.mmcv_operators.served import serve
from attnpool_backbones.ops import deform_roi_pool, roi_align, roi_pool


@serve
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
    pooling = [aligned_height, aligned_width], spatial_scale, sampling_ratio, aligned
    if roi_align.POOL_MODES[pool_mode] == 'max':
        results = output, argmax_y, argmax_x
        for result, found in zip(results, roi_align.maximum(input, rois, *pooling), strict=True):
            result.copy_(found)
    elif torch.compiler.is_compiling():
        output.copy_(roi_align.mean(input, rois, *pooling))
    else:
        roi_align.write_mean(input, rois, output, roi_align.Pooling(*pooling))


@serve
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
    pooling = [aligned_height, aligned_width], spatial_scale, sampling_ratio, aligned
    shape = grad_input.shape
    if roi_align.POOL_MODES[pool_mode] == 'max':
        grad_input += roi_align.maximum_backward(grad_output, rois, argmax_y, argmax_x, shape)
    elif torch.compiler.is_compiling():
        grad_input += roi_align.mean_backward(grad_output, rois, shape, *pooling)
    else:
        roi_align.add_mean_gradient(grad_output, rois, grad_input, roi_align.Pooling(*pooling))


@serve
def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Writes ``output`` and ``argmax``."""
    size = [pooled_height, pooled_width]
    for result, found in zip(
        (output, argmax), roi_pool.pool(input, rois, size, spatial_scale), strict=True
    ):
        result.copy_(found)


@serve
def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Adds to ``grad_input``."""
    grad_input += roi_pool.pool_backward(grad_output, rois, argmax, grad_input.shape)


@serve
def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Writes ``output``; an empty ``offset`` is none."""
    given = offset if offset.numel() else None
    form = [pooled_height, pooled_width], spatial_scale, sampling_ratio, gamma
    output.copy_(deform_roi_pool.pool(input, rois, given, *form))


@serve
def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Adds to ``grad_input`` and ``grad_offset``."""
    given = offset if offset.numel() else None
    form = [pooled_height, pooled_width], spatial_scale, sampling_ratio, gamma
    for_input, for_offset = deform_roi_pool.pool_backward(grad_output, input, rois, given, *form)
    grad_input += for_input
    if given is not None:
        grad_offset += for_offset
