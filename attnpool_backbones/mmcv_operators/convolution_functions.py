"""mmcv's functions of convolutions, in plain torch."""

import torch
from torch import Tensor

from attnpool_backbones.mmcv_operators.served import serve
from attnpool_backbones.ops import deform_conv, masked_conv


@serve
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


@serve
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


@serve
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
    own = values.shape[1:].numel()
    if own <= needed:
        return values
    return values.reshape(batch, own)[:, :needed].unflatten(1, (channels, *size))


@serve
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
    form = [stride_h, stride_w], [pad_h, pad_w], [dilation_h, dilation_w], group, deformable_group
    offset, mask = (_as_mmcv_reads(t, output.shape[2:]) for t in (offset, mask))
    output.copy_(deform_conv.convolve(input, offset, mask, weight, *form))
    if with_bias:
        output += bias.view(-1, 1, 1)


@serve
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
    form = [stride_h, stride_w], [pad_h, pad_w], [dilation_h, dilation_w], group, deformable_group
    size = grad_output.shape[2:]
    offset, mask = (_as_mmcv_reads(t, size) for t in (offset, mask))
    wanted = [True, True]
    found = deform_conv.convolve_backward(grad_output, input, offset, mask, weight, *form, wanted)
    grad_input.copy_(found[0])
    for result, value in zip((grad_offset, grad_mask), found[1:3], strict=True):
        room = result.contiguous()  # in another layout, its part would be a copy
        _as_mmcv_reads(room, size).copy_(value)
        result.copy_(room)
    grad_weight += found[3]
    if with_bias:
        grad_bias += grad_output.sum((0, 2, 3))


@serve
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


@serve
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
