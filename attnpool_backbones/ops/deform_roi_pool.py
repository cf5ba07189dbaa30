"""Deformable RoI pooling (arXiv 1703.06211, eq. 5 and 6) as mmcv defines it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnpool_backbones.ops.bilinear import weighted_sums, weighted_sums_backward
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.own_operator import own_operator
from attnpool_backbones.ops.precision import full_precision, wide_dtype

CELLS = 1 << 19  # weights of pixels that are held at a time


@operator
def deform_roi_pool(
    x: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    """Pools the mean of each bin of a region, as RoIAlign does, where an offset moves the bin.

    The fast form takes RoIs in chunks of about 30 MiB of weights and stores no samples. Sums are
    at least float32. Beyond the outermost pixels' centres the gradients of the offsets are those
    of the values, which are constant there; mmcv's are not.

    Args:
        x: B, C, H, W.
        rois: R, 5: index of the image, x1, y1, x2, y2, in pixels of the image.
        offset: R, 2, *output_size: shifts of bins in x and y, in sizes of the RoI times gamma; or
            None.
        output_size: Height and width of the result, in bins.
        spatial_scale: Pixels of the map for one of the image. Default: 1.0.
        sampling_ratio: Samples of a bin along each axis; 0: one for each pixel that the bin is
            long, rounded up. Default: 0.
        gamma: Unit of the offsets. Default: 0.1.

    Returns:
        R, C, *output_size.
    """
    form = Form(output_size, spatial_scale, sampling_ratio, gamma)
    bins = _bins(x.shape, rois, offset, form)
    index, share = bins.rows(x.shape), bins.shares()  # R * bins, n
    pixels = x.permute(0, 2, 3, 1).flatten(0, 2).to(share.dtype)  # B * H * W, C
    sums = (pixels[index] * share.unsqueeze(-1)).sum(1)
    return sums.view(len(rois), *output_size, x.shape[1]).permute(0, 3, 1, 2).to(x.dtype)


@deform_roi_pool.fast
def _(
    x: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    return pool(x, rois, offset, output_size, spatial_scale, sampling_ratio, gamma)


class Form(NamedTuple):
    """How regions are pooled, see :func:`deform_roi_pool`."""

    output_size: Sequence[int]
    spatial_scale: float
    sampling_ratio: int
    gamma: float


class Axis(NamedTuple):
    """Samples along one axis: R RoIs, bins in y and x, S samples and the two pixels around."""

    index: Tensor
    """R, by, bx, S, 2: of the pixels."""
    weight: Tensor
    """Likewise: their weights in the mean over the samples."""
    slope: Tensor
    """Likewise: derivatives of the weights by the bin's offset."""


class Bins(NamedTuple):
    """All samples of R RoIs."""

    images: Tensor
    """R."""
    y: Axis
    x: Axis

    def rows(self, shape: torch.Size) -> Tensor:
        """Returns the indices of all samples' pixels in a batch, R * by * bx, n."""
        image = self.images.view(-1, 1, 1, 1, 1) * shape[2]
        lines = (image + self.y.index) * shape[3]
        return (_over_y(lines) + _over_x(self.x.index)).flatten(0, 2).flatten(1)

    def shares(self) -> Tensor:
        """Returns their weights in the bins' means, R * by * bx, n."""
        return (_over_y(self.y.weight) * _over_x(self.x.weight)).flatten(0, 2).flatten(1)


@own_operator('deform_roi_pool')
def pool(
    x: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    """Computes the fast form of :func:`deform_roi_pool`."""
    output = _room(x, rois, offset, output_size)
    table = _table(x)
    with full_precision(x.device):
        form = Form(output_size, spatial_scale, sampling_ratio, gamma)
        for part, bins in _parts(x.shape, rois, offset, form):
            sums = weighted_sums(table, bins.rows(x.shape), bins.shares())
            sums = sums.view(-1, *output_size, x.shape[1])
            output[part] = sums.permute(0, 3, 1, 2).to(output.dtype)
    return output


@own_operator('deform_roi_pool_backward')
def pool_backward(
    grad: Tensor,
    x: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of x and of the offsets (of one element without offsets)."""
    _, grad_offset = _gradient_room(grad, x, rois, offset)
    table = _table(x)
    grad_table = torch.zeros_like(table)
    with full_precision(x.device):
        form = Form(output_size, spatial_scale, sampling_ratio, gamma)
        for part, bins in _parts(x.shape, rois, offset, form):
            grads = grad[part].permute(0, 2, 3, 1).to(table.dtype).reshape(-1, x.shape[1])
            for_table, for_share = weighted_sums_backward(
                grads, table, bins.rows(x.shape), bins.shares()
            )
            grad_table += for_table
            if offset is None:
                continue
            weights = [_over_y(bins.y.weight), _over_x(bins.x.weight)]
            for_share = for_share.view(torch.broadcast_shapes(*(w.shape for w in weights)))
            by_y = for_share * _over_y(bins.y.slope) * weights[1]
            by_x = for_share * weights[0] * _over_x(bins.x.slope)
            grad_offset[part] = torch.stack([by_x, by_y], 1).sum((-4, -3, -2, -1))
    grad_x = grad_table.view(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
    return grad_x.to(x.dtype).contiguous(), grad_offset


def _room(x: Tensor, rois: Tensor, offset: Tensor | None, size: Sequence[int], *_: Any) -> Tensor:
    return x.new_empty(rois.shape[0], x.shape[1], *size)


def _gradient_room(
    grad: Tensor, x: Tensor, rois: Tensor, offset: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor]:
    grad_offset = x.new_zeros(1) if offset is None else offset.new_zeros(offset.shape)
    return x.new_empty(x.shape), grad_offset


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.form = inputs[3:]


def _gradients(ctx: Any, grad: Tensor) -> tuple:
    saved = ctx.saved_tensors  # once, see ops.gradients.once_differentiable
    grad_x, grad_offset = pool_backward(grad, *saved, *ctx.form)
    return grad_x, None, None if saved[2] is None else grad_offset, *[None] * 4


pool.register_fake(_room)
pool.register_autograd(_gradients, setup_context=_keep)
pool_backward.register_fake(_gradient_room)


def _table(x: Tensor) -> Tensor:
    """Returns a batch as rows B * H * W, C."""
    return x.permute(0, 2, 3, 1).to(wide_dtype(x.dtype)).reshape(-1, x.shape[1])


def _over_y(value: Tensor) -> Tensor:
    """Gives R, by, bx, Sy, 2 the axes of samples in x."""
    return value.unsqueeze(-1).unsqueeze(-1)


def _over_x(value: Tensor) -> Tensor:
    """Gives R, by, bx, Sx, 2 the axes of samples in y."""
    return value.unsqueeze(-3).unsqueeze(-3)


def _parts(
    shape: torch.Size, rois: Tensor, offset: Tensor | None, form: Form
) -> Iterator[tuple[slice, Bins]]:
    """Yields some RoIs and their bins; as many as fit if all were as large as the largest."""
    samples = 4 * form.output_size[0] * form.output_size[1]
    if len(rois):
        counts = (_grid(rois, form)[2][:, axis].max() for axis in range(2))
        for count in counts:
            samples *= max(1, int(count))
    step = max(1, CELLS // samples)
    for begin in range(0, len(rois), step):
        part = slice(begin, begin + step)
        yield part, _bins(shape, rois[part], None if offset is None else offset[part], form)


def _grid(rois: Tensor, form: Form) -> tuple[Tensor, Tensor, Tensor]:
    """Returns where RoIs begin, their lengths, and how many samples a bin has, R, 2 in x and y."""
    rois = rois.to(wide_dtype(rois.dtype))
    corners = rois[:, 1:] * torch.tensor(form.spatial_scale, dtype=torch.float32) - 0.5
    begins, ends = corners.split(2, 1)
    lengths = ends - begins
    bins = lengths.new_tensor(list(reversed(form.output_size)))
    if form.sampling_ratio > 0:
        return begins, lengths, torch.full_like(lengths, form.sampling_ratio)
    return begins, lengths, (lengths / bins).float().ceil().clamp(min=0).to(lengths)


def _bins(shape: torch.Size, rois: Tensor, offset: Tensor | None, form: Form) -> Bins:
    begins, lengths, counts = _grid(rois, form)
    axes = []
    for axis, size in ((1, shape[2]), (0, shape[3])):
        begin, length, count = (t[:, axis].view(-1, 1, 1, 1) for t in (begins, lengths, counts))
        bins = form.output_size[1 - axis]
        unit = form.gamma * length
        if offset is not None:
            begin = begin + unit * offset[:, axis].unsqueeze(-1).to(unit)  # R, by, bx, 1
        number = torch.arange(bins, device=rois.device)
        number = number.view(-1, 1, 1) if axis == 1 else number.view(1, -1, 1)
        sample = torch.arange(max(1, int(count.max()) if len(rois) else 1), device=rois.device)
        bin_length = length / bins
        position = begin + number * bin_length + (sample + 0.5) * bin_length / count.clamp(min=1)
        position = position.expand(-1, *form.output_size, -1)
        there = (sample < count) & (position >= -1) & (position <= size)
        mean = there / count.clamp(min=1)
        inner = torch.where(there, position, 0).clamp(0, size - 1)
        low = inner.detach().floor()
        part = inner - low
        index = torch.stack([low, (low + 1).clamp(max=size - 1)], -1).long()
        weight = torch.stack([1 - part, part], -1) * mean.unsqueeze(-1)
        moving = mean * (position >= 0) * (low < size - 1) * unit
        slope = torch.stack([-moving, moving], -1)
        axes.append(Axis(index, weight, slope))
    return Bins(rois[:, 0].long(), *axes)
