"""Deformable convolution (arXiv 1703.06211, eq. 2 and 3; arXiv 1811.11168, eq. 1) as in mmcv."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnpool_backbones.ops.bilinear import Corners, corners, weighted_sums, weighted_sums_backward
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.own_operator import own_operator
from attnpool_backbones.ops.precision import full_precision, wide_dtype

CELLS = 1 << 22  # sampled values that are held at a time, at least
PARTS = 4  # of an image, into which larger ones are cut


class Form(NamedTuple):
    """How the kernel moves, see :func:`deform_conv2d`."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int
    deform_groups: int


@operator
def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Convolves samples between pixels: each tap of the kernel looks where an offset sends it.

    y(p) = sum_k w_k m_k(p) x(p + p_k + offset_k(p)), zero beyond the map. The fast form holds the
    samples of a quarter of an image at a time, or 16 MiB if that is more, and samples again in
    the backward pass. Sums are at least float32.

    Args:
        x: B, C, H, W.
        offset: B, D * K * 2, H', W': of D groups of channels and K taps, dy and dx in pixels.
        weight: O, C / groups, and the kernel's height and width.
        bias: O, or None. Default: None.
        mask: B, D * K, H', W': factors m of the samples (version 2), or None. Default: None.
        stride: Vertical and horizontal. Default: (1, 1).
        padding: Likewise. Default: (0, 0).
        dilation: Likewise. Default: (1, 1).
        groups: Groups of channels of the convolution. Default: 1.
        deform_groups: Groups of channels with offsets of their own. Default: 1.

    Returns:
        B, O, H', W'.
    """
    form = Form(stride, padding, dilation, groups, deform_groups)
    taps, size = weight.shape[2:], offset.shape[2:]
    offsets = offset.reshape(len(x), deform_groups, -1, 2, size.numel())  # B, D, K, 2, P
    masks = None if mask is None else mask.reshape(len(x), deform_groups, -1, size.numel())
    around = _around(x.shape, offsets.to(wide_dtype(x.dtype)), taps, size, form)  # B, D, K, P, 4
    pixels = x.unflatten(1, (deform_groups, -1)).flatten(3)  # B, D, C / D, H * W
    where = around.index.flatten(2).unsqueeze(2).expand(-1, -1, pixels.shape[2], -1)
    taken = pixels.gather(3, where).unflatten(3, around.index.shape[2:])  # B, D, C / D, K, P, 4
    samples = (taken * around.weight.unsqueeze(2)).sum(-1)  # B, D, C / D, K, P
    columns = (samples if mask is None else samples * masks.unsqueeze(2)).flatten(1, 2)
    columns = columns.unflatten(1, (groups, -1))  # B, G, C / G, K, P
    kernels = weight.flatten(2).unflatten(0, (groups, -1))  # G, O / G, C / G, K
    y = torch.einsum('bgckp,gock->bgop', columns, kernels.to(columns.dtype))
    y = y.reshape(len(x), len(weight), *size).to(x.dtype)
    return y if bias is None else y + bias.view(-1, 1, 1)


@deform_conv2d.fast
def _(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    y = convolve(x, offset, mask, weight, stride, padding, dilation, groups, deform_groups)
    return y if bias is None else y + bias.view(-1, 1, 1)


@own_operator('deform_conv2d')
def convolve(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    """Computes :func:`deform_conv2d` without bias."""
    form = Form(stride, padding, dilation, groups, deform_groups)
    _check(x, offset, mask, weight, form)
    output = _room(x, offset, mask, weight)
    points, kernels = output.flatten(2), _kernels(weight, groups)
    shapes = x.shape, weight.shape, output.shape
    with full_precision(x.device):
        for image, inputs in _images(x, offset, mask, deform_groups):
            for part in _parts(*shapes):
                points[image, :, part] = _convolve_part(shapes, form, part, *inputs, kernels)
    return output


@own_operator('deform_conv2d_backward')
def convolve_backward(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deform_groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of x, offset, mask (of one element without a mask) and weight.

    Those of the first three are zero if not the first entry of ``wanted`` is true, that of the
    weight is if not the second one is.
    """
    form = Form(stride, padding, dilation, groups, deform_groups)
    shapes, kernels = (x.shape, weight.shape, grad.shape), _kernels(weight, groups)
    results = _gradient_room(grad, x, offset, mask, weight)
    grad_kernels = torch.zeros_like(kernels)
    with full_precision(x.device):
        for image, inputs in _images(x, offset, mask, deform_groups):
            totals = [torch.zeros_like(t) for t in inputs]
            for part in _parts(*shapes):
                grad_part = grad[image].flatten(1)[:, part].to(kernels.dtype)
                if wanted[0]:
                    _add_gradients(grad_part, shapes, form, part, *inputs, kernels, *totals)
                if wanted[1]:
                    columns = _columns(shapes, form, part, *inputs)
                    grad_kernels += (grad_part.unflatten(0, (groups, -1)) @ columns).mT
            results[0][image] = totals[0].reshape(*x.shape[2:], -1).permute(2, 0, 1)
            results[1][image] = totals[1].reshape(offset.shape[1:])
            if mask is not None:
                results[2][image] = totals[2].reshape(mask.shape[1:])
    parts = grad_kernels.unflatten(1, (weight.shape[2:].numel(), -1))  # G, K, C / G, O / G
    results[3].copy_(parts.permute(0, 3, 2, 1).reshape(weight.shape))
    return results


def _check(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, form: Form) -> None:
    if x.shape[1] != weight.shape[1] * form.groups or x.shape[1] % form.deform_groups:
        raise ValueError(
            f'x has {x.shape[1]} channels; the weight takes {weight.shape[1]} in each of '
            f'{form.groups} groups, and {form.deform_groups} deform_groups divide them'
        )
    size = [
        (length + 2 * pad - step * (taps - 1) - 1) // stride + 1
        for length, pad, step, taps, stride in zip(
            x.shape[2:], form.padding, form.dilation, weight.shape[2:], form.stride, strict=True
        )
    ]
    taps = form.deform_groups * weight.shape[2:].numel()
    for name, given, channels in (('offset', offset, 2 * taps), ('mask', mask, taps)):
        right = (len(x), channels, *size)
        if given is not None and given.shape != right:
            raise ValueError(f'{name} has the shape {tuple(given.shape)}, needed is {right}')


def _room(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[2:])


def _gradient_room(
    grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_mask = offset.new_zeros(1) if mask is None else offset.new_zeros(mask.shape)
    grad_x, grad_offset, grad_weight = (t.new_zeros(t.shape) for t in (x, offset, weight))
    return grad_x, grad_offset, grad_mask, grad_weight


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.form = inputs[4:]


def _gradients(ctx: Any, grad: Tensor) -> tuple:
    wanted = [any(ctx.needs_input_grad[:3]), ctx.needs_input_grad[3]]
    saved = ctx.saved_tensors  # once, see ops.gradients.once_differentiable
    found = convolve_backward(grad, *saved, *ctx.form, wanted)
    grad_mask = None if saved[2] is None else found[2]
    return *found[:2], grad_mask, found[3], *[None] * 5


convolve.register_fake(_room)
convolve.register_autograd(_gradients, setup_context=_keep)
convolve_backward.register_fake(_gradient_room)


def _convolve_part(
    shapes: tuple[torch.Size, torch.Size, torch.Size],
    form: Form,
    part: slice,
    table: Tensor,
    offsets: Tensor,
    masks: Tensor,
    kernels: Tensor,
) -> Tensor:
    """Convolves for some output points of an image.

    Args:
        shapes: Of x, the weight and the whole result.
        form: How the kernel moves.
        part: Of the H' * W' points.
        table: H * W * D, C / D: the map, pixel by pixel and group by group.
        offsets: D, K, 2, H' * W'.
        masks: D, K, H' * W'; empty without masks.
        kernels: G, K * C / G, O / G.

    Returns:
        O, P.
    """
    return (_columns(shapes, form, part, table, offsets, masks) @ kernels).mT.flatten(0, 1)


def _columns(
    shapes: tuple[torch.Size, torch.Size, torch.Size],
    form: Form,
    part: slice,
    table: Tensor,
    offsets: Tensor,
    masks: Tensor,
) -> Tensor:
    """Returns the samples that :func:`_convolve_part` multiplies, G, P, K * C / G."""
    index, around = _taps(shapes, form, part, offsets)
    share = _by_point(around.weight * _mask_of(masks, part, around)).flatten(0, 2)
    columns = weighted_sums(table, index, share)  # P * K * D, C / D
    columns = columns.view(-1, shapes[1][2:].numel(), form.groups, shapes[1][1])  # P, K, G, C / G
    return columns.permute(2, 0, 1, 3).flatten(2)


def _add_gradients(
    grad: Tensor,
    shapes: tuple[torch.Size, torch.Size, torch.Size],
    form: Form,
    part: slice,
    table: Tensor,
    offsets: Tensor,
    masks: Tensor,
    kernels: Tensor,
    grad_table: Tensor,
    grad_offsets: Tensor,
    grad_masks: Tensor,
) -> None:
    """Adds the gradients of the inputs of :func:`_convolve_part` for ``grad``, O, P."""
    index, around = _taps(shapes, form, part, offsets)
    factor = _mask_of(masks, part, around)
    share = _by_point(around.weight * factor).flatten(0, 2)
    sizes = shapes[1][2:].numel(), shapes[1][1]  # K, C / G
    grads = grad.unflatten(0, (form.groups, -1)).mT @ kernels.mT  # G, P, K * C / G
    grad_columns = grads.unflatten(2, sizes).permute(1, 2, 0, 3)  # P, K, G, C / G
    grad_columns = grad_columns.reshape(len(index), -1)  # P * K * D, C / D
    for_table, for_share = weighted_sums_backward(grad_columns, table, index, share)
    grad_table += for_table
    for_share = for_share.view(_by_point(around.weight).shape).permute(2, 1, 0, 3)  # D, K, P, 4
    if masks.numel():
        grad_masks[..., part] = (for_share * around.weight).sum(-1)
    for axis, slope in enumerate((around.slope_y, around.slope_x)):
        grad_offsets[:, :, axis, part] = (for_share * factor * slope).sum(-1)


def _taps(
    shapes: tuple[torch.Size, torch.Size, torch.Size], form: Form, part: slice, offsets: Tensor
) -> tuple[Tensor, Corners]:
    """Returns the rows of the table that taps take, P * K * D, 4, and the corners D, K, P, 4."""
    around = _around(shapes[0], offsets[..., part], shapes[1][2:], shapes[2][2:], form, part)
    groups = torch.arange(form.deform_groups, device=offsets.device).unsqueeze(1)
    return (_by_point(around.index) * form.deform_groups + groups).flatten(0, 2), around


def _by_point(corner_values: Tensor) -> Tensor:
    """Turns D, K, P, 4 into P, K, D, 4."""
    return corner_values.permute(2, 1, 0, 3)


def _mask_of(masks: Tensor, part: slice, around: Corners) -> Tensor:
    """Returns the factors of samples, D, K, P, 1; a single one without masks."""
    if not masks.numel():
        return around.weight.new_ones(1)
    return masks[..., part].unsqueeze(-1)


def _around(
    shape: torch.Size,
    offsets: Tensor,
    taps: Sequence[int],
    size: Sequence[int],
    form: Form,
    part: slice = slice(None),
) -> Corners:
    """Returns the pixels around the taps' samples, ..., K, P, 4.

    Args:
        shape: Of x.
        offsets: ..., K, 2, P.
        taps: Height and width of the kernel.
        size: H', W'.
        form: How the kernel moves.
        part: Of the H' * W' points.
    """
    points = torch.arange(size[0] * size[1], device=offsets.device)[part]
    tap = torch.arange(taps[0] * taps[1], device=offsets.device).unsqueeze(1)
    begins, steps = (points // size[1], points % size[1]), (tap // taps[1], tap % taps[1])
    y, x = (
        begins[axis] * form.stride[axis]
        - form.padding[axis]
        + steps[axis] * form.dilation[axis]
        + offsets[..., axis, :]
        for axis in range(2)
    )
    return corners(y, x, *shape[2:])


def _images(
    x: Tensor, offset: Tensor, mask: Tensor | None, deform_groups: int
) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
    """Yields of each image the table, the offsets and the masks of :func:`_convolve_part`."""
    wide = wide_dtype(x.dtype)
    for image in range(len(x)):
        table = x[image].permute(1, 2, 0).to(wide).reshape(-1, x.shape[1] // deform_groups)
        offsets = offset[image].to(wide)
        offsets = offsets.reshape(deform_groups, -1, 2, offset.shape[2:].numel())
        masks = offsets[:0, :, 0]
        if mask is not None:
            masks = mask[image].to(wide).reshape(offsets[:, :, 0].shape)
        yield image, (table, offsets, masks)


def _parts(shape: torch.Size, weight_shape: torch.Size, output_shape: torch.Size) -> list[slice]:
    """Cuts the points of an image into few parts, as each part's gradient is as large as x."""
    points = output_shape[2:].numel()
    step = max(-(-points // PARTS), CELLS // (shape[1] * weight_shape[2:].numel()))
    return [slice(begin, begin + step) for begin in range(0, points, step)]


def _kernels(weight: Tensor, groups: int) -> Tensor:
    """Returns the weight as matrices G, K * C / G, O / G, at least float32."""
    parts = weight.flatten(2).unflatten(0, (groups, -1))  # G, O / G, C / G, K
    return parts.permute(0, 3, 2, 1).flatten(1, 2).to(wide_dtype(weight.dtype))
