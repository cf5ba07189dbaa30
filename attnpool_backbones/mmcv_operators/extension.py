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
from attnpool_backbones.ops import (
    box_overlaps,
    carafe,
    deform_attention,
    deform_conv,
    deform_roi_pool,
    focal_loss,
    masked_conv,
    psa_mask,
    roi_align,
    roi_pool,
    soft_nms,
)
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
    """Returns the indices of the kept boxes."""
    return nms_operator.nms(boxes, scores, iou_threshold, offset)


@_serve
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Returns the indices of the taken boxes, and writes the first rows of ``dets``."""
    name = soft_nms.METHODS[method]
    taken, indices = soft_nms.soft_nms(boxes, scores, iou_threshold, sigma, min_score, name, offset)
    dets[: len(taken)] = taken
    return indices


@_serve
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Returns the groups of boxes; ``dets`` are boxes with scores, N, 5."""
    return nms_operator.nms_groups(dets[:, :4], dets[:, 4], iou_threshold)


@_serve
def bbox_overlaps(
    bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int
) -> None:
    """Writes ``ious``: in mode 0 over the union, in mode 1 over the first boxes."""
    over = box_overlaps.OVERS[mode]
    ious.copy_(box_overlaps.box_overlaps(bboxes1, bboxes2, over, aligned, offset))


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
    pooling = [aligned_height, aligned_width], spatial_scale, sampling_ratio, aligned
    if roi_align.POOL_MODES[pool_mode] == 'max':
        results = output, argmax_y, argmax_x
        for result, found in zip(results, roi_align.maximum(input, rois, *pooling), strict=True):
            result.copy_(found)
    elif torch.compiler.is_compiling():
        output.copy_(roi_align.mean(input, rois, *pooling))
    else:
        roi_align.write_mean(input, rois, output, roi_align.Pooling(*pooling))


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
    pooling = [aligned_height, aligned_width], spatial_scale, sampling_ratio, aligned
    shape = grad_input.shape
    if roi_align.POOL_MODES[pool_mode] == 'max':
        grad_input += roi_align.maximum_backward(grad_output, rois, argmax_y, argmax_x, shape)
    elif torch.compiler.is_compiling():
        grad_input += roi_align.mean_backward(grad_output, rois, shape, *pooling)
    else:
        roi_align.add_mean_gradient(grad_output, rois, grad_input, roi_align.Pooling(*pooling))


@_serve
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


@_serve
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


@_serve
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


@_serve
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


# ------------------------------------------------------------------ convolutions


@_serve
def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Writes ``output``; ``columns`` and ``ones`` are room that is not needed."""
    form = [dH, dW], [padH, padW], [dilationH, dilationW], group, deformable_group
    output.copy_(deform_conv.convolve(input, offset, None, weight, *form))


@_serve
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Writes ``gradInput`` and ``gradOffset``."""
    form = [dH, dW], [padH, padW], [dilationH, dilationW], group, deformable_group
    wanted = [True, False]
    found = deform_conv.convolve_backward(gradOutput, input, offset, None, weight, *form, wanted)
    gradInput.copy_(found[0])
    gradOffset.copy_(found[1])


@_serve
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Adds to ``gradWeight``."""
    form = [dH, dW], [padH, padW], [dilationH, dilationW], group, deformable_group
    wanted = [False, True]
    weight = torch.empty_like(gradWeight)
    found = deform_conv.convolve_backward(gradOutput, input, offset, None, weight, *form, wanted)
    gradWeight += scale * found[3]


def _as_mmcv_reads(values: Tensor, size: torch.Size) -> Tensor:
    """Returns offsets or masks of version 2 with the height and width of the result.

    mmcv takes larger ones, too, and reads them as if they had the result's size, value after
    value. DyHead relies on it: its offsets belong to a map twice as large.
    """
    batch, channels, *_ = values.shape
    needed = channels * size.numel()
    if values[0].numel() <= needed:
        return values
    return values.view(batch, -1)[:, :needed].unflatten(1, (channels, *size))


@_serve
def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Writes ``output``."""
    form = (
        [stride_h, stride_w],
        [pad_h, pad_w],
        [dilation_h, dilation_w],
        group,
        deformable_group,
    )
    offset, mask = (_as_mmcv_reads(t, output.shape[2:]) for t in (offset, mask))
    output.copy_(deform_conv.convolve(input, offset, mask, weight, *form))
    if with_bias:
        output += bias.view(-1, 1, 1)


@_serve
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Writes ``grad_input``, ``grad_offset`` and ``grad_mask``, adds to the other two."""
    form = (
        [stride_h, stride_w],
        [pad_h, pad_w],
        [dilation_h, dilation_w],
        group,
        deformable_group,
    )
    size = grad_output.shape[2:]
    offset, mask = (_as_mmcv_reads(t, size) for t in (offset, mask))
    wanted = [True, True]
    found = deform_conv.convolve_backward(grad_output, input, offset, mask, weight, *form, wanted)
    grad_input.copy_(found[0])
    for result, value in zip((grad_offset, grad_mask), found[1:3], strict=True):
        _as_mmcv_reads(result, size).copy_(value)
    grad_weight += found[3]
    if with_bias:
        grad_bias += grad_output.sum((0, 2, 3))


@_serve
def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Writes ``col``: the windows at some pixels."""
    kernel, padding = (kernel_h, kernel_w), (pad_h, pad_w)
    col.copy_(masked_conv.windows_at(im, mask_h_idx, mask_w_idx, kernel, padding))


@_serve
def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Writes the values of some pixels into ``im``."""
    im[0][:, mask_h_idx, mask_w_idx] = col


# ------------------------------------------------------------------ attention and upsampling


@_serve
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Returns what the queries see."""
    return deform_attention.attend(
        value,
        value_spatial_shapes,
        value_level_start_index,
        sampling_locations,
        attention_weights,
    )


@_serve
def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Writes the last three tensors."""
    found = deform_attention.attend_backward(
        grad_output,
        value,
        value_spatial_shapes,
        value_level_start_index,
        sampling_locations,
        attention_weights,
    )
    results = grad_value, grad_sampling_loc, grad_attn_weight
    for result, gradient in zip(results, found, strict=True):
        result.copy_(gradient)


@_serve
def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes ``output``, and into ``rfeatures`` what mmcv's backward pass hands on."""
    rfeatures.copy_(features)
    output.copy_(carafe.reassemble(features, masks, kernel_size, group_size, scale_factor))


@_serve
def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes ``bottom_grad`` and ``mask_grad``."""
    sizes = kernel_size, group_size, scale_factor
    for_features, for_masks = carafe.reassemble_backward(top_grad, rfeatures, masks, *sizes)
    bottom_grad.copy_(for_features)
    mask_grad.copy_(for_masks)


@_serve
def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes ``output``."""
    output.copy_(carafe.reassemble(features, masks, kernel_size, group_size, scale_factor))


@_serve
def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes ``bottom_grad`` and ``mask_grad``."""
    sizes = kernel_size, group_size, scale_factor
    for_features, for_masks = carafe.reassemble_backward(top_grad, features, masks, *sizes)
    bottom_grad.copy_(for_features)
    mask_grad.copy_(for_masks)


@_serve
def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Writes ``output``."""
    output.copy_(psa_mask.psa_mask(input, psa_mask.PSA_TYPES[psa_type], (h_mask, w_mask)))


@_serve
def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Writes ``grad_input``."""
    name = psa_mask.PSA_TYPES[psa_type]
    grad_input.copy_(psa_mask.psa_mask_backward(grad_output, name, (h_mask, w_mask)))


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
