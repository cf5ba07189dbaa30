"""RoIAlign (Mask R-CNN, arXiv 1703.06870, section 3) as mmcv defines it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.own_operator import own_operator
from attnpool_backbones.ops.precision import full_precision, wide_dtype

POOL_MODES = ('max', 'avg')
EMPTY_MAXIMUM = -10000.0  # mmcv's maximum starts there, and stays there in a bin without samples
CELLS = 1 << 18  # weights of pixels, or interpolated values, held at a time


class Pooling(NamedTuple):
    """How RoIs are pooled, see :func:`roi_align`."""

    output_size: Sequence[int]
    spatial_scale: float
    sampling_ratio: int
    aligned: bool


class Axis(NamedTuple):
    """The samples of R RoIs along one axis: B bins of at most S samples."""

    low: Tensor
    """R, B, S: index of the pixel before the sample."""
    high: Tensor
    """R, B, S: index of the pixel after it."""
    fraction: Tensor
    """R, B, S: how far the sample is on the way from the one to the other."""
    position: Tensor
    """R, B, S: coordinate of the sample."""
    there: Tensor
    """R, B, S: whether the RoI has this sample; it has fewer than the longest one."""
    inside: Tensor
    """R, B, S: whether it has it, and at most one pixel outside of the map."""
    count: Tensor
    """R: number of samples in each bin."""

    def trimmed(self) -> 'Axis':
        """Returns the same without samples that no RoI has."""
        most = max(1, int(self.there.sum(2).max())) if len(self.count) else 1
        return Axis(*(field[..., :most] for field in self[:-1]), self.count)

    def of_each_sample(self) -> Iterator[tuple[Tensor, ...]]:
        """Yields low, high, fraction, inside and there of one sample of each bin, R, B."""
        fields = self.low, self.high, self.fraction, self.inside, self.there
        yield from zip(*(field.unbind(2) for field in fields), strict=True)

    def weights(self, size: int) -> Tensor:
        """Returns the weight of each of ``size`` pixels in a bin's mean, R, B, size."""
        share = self.inside / self.count.clamp(min=1).view(-1, 1, 1)
        weights = share.new_zeros(*share.shape[:2], size)
        weights.scatter_add_(2, self.low, (1 - self.fraction) * share)
        return weights.scatter_add_(2, self.high, self.fraction * share)


@operator
def roi_align(
    x: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    pool_mode: str = 'avg',
    aligned: bool = True,
) -> Tensor:
    """Pools regions of interest: mean or maximum over samples between the pixels of each bin.

    The mean is separable: of a RoI's part F of a map it is Wy F Wx^T, two small matrix products,
    and so is its gradient. Besides input and output it holds one image of the batch once more and
    a few MiB of weights and means; the maximum holds the batch once more and some MiB of
    interpolated values. Sums are at least float32 in any type. In a mean, a pixel that is not
    finite spoils all bins of the RoIs around it, not only those that sample it.

    Args:
        x: B, C, H, W.
        rois: R, 5: index of the image, x1, y1, x2, y2, in pixels of the image.
        output_size: Height and width of the result, in bins.
        spatial_scale: Pixels of the map for one of the image. Default: 1.0.
        sampling_ratio: Samples of a bin along each axis; 0: one for each pixel that the bin is
            long, rounded up. Default: 0.
        pool_mode: ``'avg'`` or ``'max'``. Default: ``'avg'``.
        aligned: Whether a pixel's centre is half a pixel after its corner, as it should be. If
            not, RoIs are at least one pixel large. Default: True.

    Returns:
        R, C, *output_size. Differentiable in ``x``, once.

    Raises:
        ValueError: If a RoI is not finite or of an image that is not there, or the pool mode is
            unknown.
    """
    pooling = Pooling(output_size, spatial_scale, sampling_ratio, aligned)
    ys, xs = _sample(x.shape, rois, pooling)
    wide = x.to(wide_dtype(x.dtype))
    pooled = [wide[:0, :, :1, :1].expand(-1, -1, *output_size)]  # differentiable without RoIs, too
    for index, image in enumerate(rois[:, 0].long()):
        y, x_ = (Axis(*(field[index] for field in axis)) for axis in (ys, xs))
        pixels = wide[image].flatten(1).t()  # H * W, C
        values = _interpolate(pixels, x.shape[3], y, x_)  # by, bx, sy * sx, C
        if pool_mode == 'avg':
            result = values.sum(2) / (y.count * x_.count).clamp(min=1)
        else:
            result = _candidates(values, y, x_).amax(2)
        pooled.append(result.permute(2, 0, 1).unsqueeze(0))
    return torch.cat(pooled).to(x.dtype)


@roi_align.fast
def _(
    x: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    pool_mode: str = 'avg',
    aligned: bool = True,
) -> Tensor:
    if pool_mode not in POOL_MODES:
        raise ValueError(f'unknown pool_mode {pool_mode!r}, choose from {POOL_MODES}')
    pooling = (output_size, spatial_scale, sampling_ratio, aligned)
    if pool_mode == 'avg':
        return mean(x, rois, *pooling)
    return maximum(x, rois, *pooling)[0]


# ------------------------------------------------------------------ as operators of torch


@own_operator('roi_align_mean')
def mean(
    x: Tensor,
    rois: Tensor,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """The mean of samples, as an operator of torch."""
    output = _room(x, rois, output_size)
    write_mean(x, rois, output, Pooling(output_size, spatial_scale, sampling_ratio, aligned))
    return output


@own_operator('roi_align_mean_backward')
def mean_backward(
    grad: Tensor,
    rois: Tensor,
    shape: Sequence[int],
    output_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Gradient of :func:`mean`, as an operator of torch."""
    grad_x = grad.new_zeros(shape)
    pooling = Pooling(output_size, spatial_scale, sampling_ratio, aligned)
    add_mean_gradient(grad, rois, grad_x, pooling)
    return grad_x


@own_operator('roi_align_maximum')
def maximum(
    x: Tensor,
    rois: Tensor,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The maximum of samples, as an operator of torch."""
    results = _maximum_room(x, rois, output_size)
    write_maximum(x, rois, *results, Pooling(output_size, spatial_scale, sampling_ratio, aligned))
    return results


@own_operator('roi_align_maximum_backward')
def maximum_backward(
    grad: Tensor, rois: Tensor, where_y: Tensor, where_x: Tensor, shape: Sequence[int]
) -> Tensor:
    """Gradient of :func:`maximum`, as an operator of torch."""
    grad_x = grad.new_zeros(shape)
    add_maximum_gradient(grad, rois, where_y, where_x, grad_x)
    return grad_x


def _room(x: Tensor, rois: Tensor, output_size: Sequence[int], *_: Any) -> Tensor:
    return x.new_empty(rois.shape[0], x.shape[1], *output_size)


def _maximum_room(
    x: Tensor, rois: Tensor, output_size: Sequence[int], *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    output = _room(x, rois, output_size)
    wide = wide_dtype(x.dtype)
    return output, torch.empty_like(output, dtype=wide), torch.empty_like(output, dtype=wide)


mean.register_fake(_room)
maximum.register_fake(_maximum_room)
mean_backward.register_fake(lambda grad, rois, shape, *_: grad.new_empty(shape))
maximum_backward.register_fake(lambda grad, rois, y, x, shape: grad.new_empty(shape))


def _keep_for_mean(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, rois, *ctx.pooling = inputs
    ctx.shape = x.shape
    ctx.save_for_backward(rois)


def _keep_for_maximum(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.shape = inputs[0].shape
    ctx.save_for_backward(inputs[1], *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _mean_gradients(ctx: Any, grad: Tensor) -> tuple:
    return mean_backward(grad, *ctx.saved_tensors, ctx.shape, *ctx.pooling), *[None] * 5


def _maximum_gradients(ctx: Any, grad: Tensor, *_: Any) -> tuple:
    return maximum_backward(grad, *ctx.saved_tensors, ctx.shape), *[None] * 5


mean.register_autograd(_mean_gradients, setup_context=_keep_for_mean)
maximum.register_autograd(_maximum_gradients, setup_context=_keep_for_maximum)


# ------------------------------------------------------------------ the mean


def write_mean(x: Tensor, rois: Tensor, output: Tensor, pooling: Pooling) -> None:
    """Writes the means of :func:`roi_align` into ``output``, R, C, bins, bins."""
    channels, wide, current = x.shape[1], wide_dtype(x.dtype), None
    with full_precision(x.device):
        for chunk, windows in _walk(x.shape, rois, pooling):
            means = x.new_zeros(len(chunk), *pooling.output_size, channels, dtype=wide)
            for index, image, window in windows:
                if image != current:
                    # H, W * C: a part of a map is a matrix of long rows, without a copy.
                    current, lines = image, x[image].permute(1, 2, 0).to(wide).flatten(1)
                rows = (window.wy @ window.read(lines, channels)).unflatten(1, (-1, channels))
                torch.bmm(window.wx.expand(len(rows), -1, -1), rows, out=means[index])
            output[chunk] = means.permute(0, 3, 1, 2).to(output.dtype)


def add_mean_gradient(grad: Tensor, rois: Tensor, grad_x: Tensor, pooling: Pooling) -> None:
    """Adds the gradient of :func:`write_mean` for ``grad``, R, C, bins, bins, to ``grad_x``."""
    (channels, height, width), wide = grad_x.shape[1:], wide_dtype(grad_x.dtype)
    current, lines = None, grad.new_zeros(height, width * channels, dtype=wide)

    def deliver() -> None:
        if current is not None:
            grad_x[current] += lines.unflatten(1, (width, channels)).permute(2, 0, 1)
            lines.zero_()

    with full_precision(grad.device):
        for chunk, windows in _walk(grad_x.shape, rois, pooling):
            grads = grad[chunk].permute(0, 2, 3, 1).to(wide).contiguous()  # R, bins, bins, C
            for index, image, window in windows:
                if image != current:
                    deliver()
                    current = image
                columns = window.wx.mT.expand(len(window.wy), -1, -1)
                window.add_product(lines, window.wy.mT, (columns @ grads[index]).flatten(1))
        deliver()


class Window(NamedTuple):
    """What of a map a RoI sees, and the weights of its pixels in the means."""

    wy: Tensor
    """Bins, h: weights of the rows."""
    wx: Tensor
    """Bins, w: weights of the columns."""
    rows: slice
    columns: slice
    """Of a map H, W * C."""
    pixels: Tensor | None
    """h * w: indices of the pixels, if far fewer are needed than rows and columns have."""

    def read(self, lines: Tensor, channels: int) -> Tensor:
        """Returns the part of a map H, W * C, as a matrix h, w * C."""
        if self.pixels is None:
            return lines[self.rows, self.columns]
        return lines.view(-1, channels)[self.pixels].view(self.wy.shape[1], -1)

    def add_product(self, lines: Tensor, left: Tensor, right: Tensor) -> None:
        """Adds a product of matrices, h, w * C, to the part of a map H, W * C."""
        if self.pixels is None:
            lines[self.rows, self.columns].addmm_(left, right)
        else:
            channels = right.shape[1] // self.wx.shape[1]
            product = (left @ right).view(-1, channels)
            lines.view(-1, channels).index_add_(0, self.pixels, product)


def _walk(
    shape: torch.Size, rois: Tensor, pooling: Pooling
) -> Iterator[tuple[Tensor, Iterator[tuple[int, int, Window]]]]:
    """Yields indices of some RoIs, image by image, and their windows with index and image."""
    images, order = _by_image(shape, rois)
    step = max(1, CELLS // (4 * max(pooling.output_size) * sum(shape[2:])))
    for chunk, image in zip(order.split(step), images.split(step), strict=True):
        yield chunk, _windows(shape, rois[chunk], image.tolist(), pooling)


def _windows(
    shape: torch.Size, rois: Tensor, images: list[int], pooling: Pooling
) -> Iterator[tuple[int, int, Window]]:
    """Yields index, image and window of the RoIs that see anything of the map."""
    channels, height, width = shape[1:]
    ys, xs = _sample(shape, rois, pooling)
    wys, wxs = ys.weights(height), xs.weights(width)
    seen = [(w != 0).any(1) for w in (wys, wxs)]
    begins = [s.byte().argmax(1).tolist() for s in seen]
    ends = [(s.shape[1] - s.flip(1).byte().argmax(1)).tolist() for s in seen]
    counts = [s.sum(1).tolist() for s in seen]
    for i, (top, left, bottom, right, h, w) in enumerate(zip(*begins, *ends, *counts, strict=True)):
        if not h * w:
            continue
        if 2 * h * w < (bottom - top) * (right - left):
            y, x = (s[i].nonzero().squeeze(1) for s in seen)
            pixels = (y.unsqueeze(1) * width + x).flatten()
            window = Window(wys[i][:, y], wxs[i][:, x], slice(0), slice(0), pixels)
        else:
            rows, columns = slice(top, bottom), slice(left * channels, right * channels)
            window = Window(wys[i][:, rows], wxs[i][:, left:right], rows, columns, None)
        yield i, images[i], window


# ------------------------------------------------------------------ the maximum


def write_maximum(
    x: Tensor, rois: Tensor, output: Tensor, where_y: Tensor, where_x: Tensor, pooling: Pooling
) -> None:
    """Writes the maxima of :func:`roi_align`, and the coordinates at which they were found.

    Args:
        x: B, C, H, W.
        rois: R, 5.
        output: R, C, bins, bins.
        where_y: Like ``output``; -1 in bins without a sample above :data:`EMPTY_MAXIMUM`.
        where_x: Likewise.
        pooling: How to pool.
    """
    _check_rois(x.shape, rois)
    table = _table_of_pixels(x)
    for chunk in _alike(x.shape, rois, pooling):
        y, x_ = (axis.trimmed() for axis in _sample(x.shape, rois[chunk], pooling))
        best = table.new_full((len(chunk), *pooling.output_size, x.shape[1]), EMPTY_MAXIMUM)
        samples = y.low.shape[2] * x_.low.shape[2]
        # the number of the best sample so far, from 1 on: later ones are larger
        at = torch.zeros_like(best, dtype=torch.int16 if samples < 2**15 else torch.int32)
        number = torch.zeros((), dtype=at.dtype, device=x.device)
        for index, weight in _sample_by_sample(x.shape, rois[chunk, 0], y, x_):
            values = F.embedding_bag(
                index.flatten(0, -2), table, mode='sum', per_sample_weights=weight.flatten(0, -2)
            ).view_as(best)
            number += 1
            at = torch.maximum(at, (values > best) * number)
            torch.fmax(values, best, out=best)
        for target, result in ((output, best), *_positions(at.long(), y, x_, where_y, where_x)):
            target[chunk] = result.permute(0, 3, 1, 2).to(target.dtype)


def _table_of_pixels(x: Tensor) -> Tensor:
    """Returns all pixels, a row of zeros and one that no maximum takes, B * H * W + 2, C.

    The last one is far below :data:`EMPTY_MAXIMUM`: weights of a sample do not add up to exactly 1,
    and what they make of EMPTY_MAXIMUM itself can be above it.
    """
    batch, channels, height, width = x.shape
    table = x.new_zeros(batch * height * width + 2, channels, dtype=wide_dtype(x.dtype))
    table[:-2].view(batch, height, width, channels).copy_(x.permute(0, 2, 3, 1))
    table[-1] = 2 * EMPTY_MAXIMUM
    return table


def _alike(shape: torch.Size, rois: Tensor, pooling: Pooling) -> Iterator[Tensor]:
    """Yields indices of RoIs that are pooled at once, of about as many samples each."""
    height, width = pooling.output_size
    sides = (rois[:, 3:] - rois[:, 1:3]) * pooling.spatial_scale
    rows = (sides[:, 1] / height).ceil()
    order = sides[:, 0].argsort()
    order = order[rows[order].argsort(stable=True)]
    values, samples = height * width * shape[1], 2 * max(height, width) * sum(shape[2:])
    yield from order.split(max(1, CELLS // max(1, values, samples)))


def _sample_by_sample(
    shape: torch.Size, images: Tensor, y: Axis, x: Axis
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the four pixels around one sample of each bin, as rows of a table, and their weights.

    Both are R, by, bx, 4. The table is that of :func:`_table_of_pixels`.
    """
    batch, _, height, width = shape
    far = batch * height * width
    base = (images.long() * (height * width)).view(-1, 1, 1)
    for row in y.of_each_sample():
        low, high, fy, inside_y, there_y = (value.unsqueeze(2) for value in row)
        low, high = base + low * width, base + high * width
        for column in x.of_each_sample():
            left, right, fx, inside_x, there_x = (value.unsqueeze(1) for value in column)
            index = torch.stack([low + left, low + right, high + left, high + right], -1)
            index = torch.where((inside_y & inside_x).unsqueeze(-1), index, far)
            index = torch.where((there_y & there_x).unsqueeze(-1), index, far + 1)
            gy, gx = 1 - fy, 1 - fx
            yield index, torch.stack([gy * gx, gy * fx, fy * gx, fy * fx], -1)


def _positions(
    at: Tensor, y: Axis, x: Axis, where_y: Tensor, where_x: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields where coordinates belong, and those of samples by number, R, by, bx, C; 0 gives -1."""
    rows, columns = y.low.shape[2], x.low.shape[2]
    ys = y.position.unsqueeze(3).expand(-1, -1, -1, columns).flatten(2)
    xs = x.position.unsqueeze(2).expand(-1, -1, rows, -1).flatten(2)
    ys, xs = (torch.cat([p.new_full((*p.shape[:2], 1), -1), p], 2) for p in (ys, xs))
    yield where_y, ys.gather(2, at.flatten(2)).view(at.shape)
    yield where_x, xs.unsqueeze(1).expand(-1, at.shape[1], -1, -1).gather(3, at)


def add_maximum_gradient(
    grad: Tensor, rois: Tensor, where_y: Tensor, where_x: Tensor, grad_x: Tensor
) -> None:
    """Adds the gradient of :func:`write_maximum` to ``grad_x``; arguments as there."""
    _, channels, height, width = grad_x.shape
    wide = wide_dtype(grad_x.dtype)
    is_room = grad_x.dtype == wide and grad_x.is_contiguous()
    sums = (grad_x if is_room else torch.zeros_like(grad_x, dtype=wide)).view(-1)
    planes = rois[:, 0].long().unsqueeze(1) * channels + torch.arange(channels, device=grad.device)
    down, right = width * (height > 1), int(width > 1)  # from a pixel to those after it
    step = max(1, CELLS // max(1, grad[:1].numel()))
    for chunk in torch.arange(len(rois), device=grad.device).split(step):
        y, x = (where[chunk].to(wide) for where in (where_y, where_x))
        found = (y > -1) & (y <= height) & _is_inside(x, width)  # y is -1 where none was found
        value = torch.where(found, grad[chunk].to(wide), 0)
        (row, fy), (column, fx) = _before(y, height), _before(x, width)
        index = (planes[chunk] * (height * width)).view(-1, channels, 1, 1) + column
        index = index.add_(row, alpha=width).flatten()
        below = value * fy
        above = value.sub_(below)
        for shift, part in ((0, above), (down, below)):
            after = part * fx
            sums[shift + right :].scatter_add_(0, index, after.flatten())
            sums[shift:].scatter_add_(0, index, part.sub_(after).flatten())
    if not is_room:
        grad_x += sums.view(grad_x.shape)


def _before(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Returns pixels that have another one after them, and how far coordinates are from there."""
    position = position.clamp(0, size - 1)
    low = position.long().clamp_(max=max(0, size - 2))
    return low, position.sub_(low)


def _interpolate(
    pixels: Tensor, width: int, y: Axis, x: Axis, rows: Tensor | slice = slice(None)
) -> Tensor:
    """Returns the samples in rows of bins, by, bx, sy * sx, C; zero far from the map."""
    total = 0
    for row, wy in _corners(y):
        for column, wx in _corners(x):
            index = row[rows, None, :, None] * width + column.unsqueeze(1)  # by, bx, sy, sx
            weight = wy[rows, None, :, None] * wx.unsqueeze(1)
            total = total + weight.unsqueeze(-1) * pixels[index]
    inside = y.inside[rows, None, :, None] & x.inside.unsqueeze(1)
    return torch.where(inside.unsqueeze(-1), total, 0).flatten(2, 3)


def _candidates(values: Tensor, y: Axis, x: Axis) -> Tensor:
    """Makes samples lose that mmcv's maximum passes over: missing ones, NaN, very small ones."""
    there = y.there[:, None, :, None] & x.there.unsqueeze(1)  # by, bx, sy, sx
    kept = there.flatten(2).unsqueeze(-1) & (values > EMPTY_MAXIMUM)
    return torch.where(kept, values, EMPTY_MAXIMUM)


def _corners(axis: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the pixel before and the one after each sample, with their weights."""
    low, high, fraction = axis[:3]
    yield low, 1 - fraction
    yield high, fraction


# ------------------------------------------------------------------ samples


def _sample(shape: torch.Size, rois: Tensor, pooling: Pooling) -> tuple[Axis, Axis]:
    """Returns the samples of RoIs, R, 5, along y and x, rounded as mmcv rounds them."""
    rois = rois.to(wide_dtype(rois.dtype))
    corners = rois[:, 1:] * torch.tensor(pooling.spatial_scale, dtype=torch.float32)
    begins, ends = (corners - 0.5 * pooling.aligned).split(2, 1)
    lengths = ends - begins
    if not pooling.aligned:
        lengths = lengths.clamp(min=1)
    y, x = (
        _sample_axis(begins[:, i], lengths[:, i], bins, size, pooling.sampling_ratio)
        for i, bins, size in zip((1, 0), pooling.output_size, shape[2:], strict=True)
    )
    return y, x


def _sample_axis(begin: Tensor, length: Tensor, bins: int, size: int, ratio: int) -> Axis:
    bin_length = length / bins
    # mmcv rounds up what it has rounded to float32 first
    count = torch.full_like(length, ratio) if ratio > 0 else bin_length.float().ceil().to(length)
    begin = begin.unsqueeze(1) + torch.arange(bins, device=begin.device) * bin_length.unsqueeze(1)
    bin_length, count = bin_length.view(-1, 1, 1), count.view(-1, 1, 1).clamp(max=2**30)

    # Samples are at least half a pixel apart, unless a ratio says otherwise: of a huge RoI only
    # those around the map are looked at.
    most = int(count.max()) if len(count) else 0
    looked_at = max(1, most if ratio > 0 else min(most, 2 * size + 8))
    first = ((-1 - begin.unsqueeze(2)) * count / bin_length - 1.5).floor()
    first = first.nan_to_num(0).minimum(count - looked_at).clamp(min=0)
    index = first + torch.arange(looked_at, device=begin.device)  # R, B, S

    position = begin.unsqueeze(2) + (index + 0.5) * bin_length / count.clamp(min=1)
    there = index < count
    inside = there & _is_inside(position, size)
    low, high, fraction = _neighbours(torch.where(inside, position, 0), size)
    return Axis(low, high, fraction, position, there, inside, count.flatten())


def _is_inside(position: Tensor, size: int) -> Tensor:
    """Tells which coordinates are at most one pixel outside of an axis."""
    return (position >= -1) & (position <= size)


def _neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the pixels before and after coordinates, and how far these are on the way."""
    position = position.clamp(0, size - 1)
    low = position.long()
    return low, (low + 1).clamp(max=size - 1), position - low


def _by_image(shape: torch.Size, rois: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the images of RoIs, ascending, and the indices of the RoIs in that order."""
    _check_rois(shape, rois)
    return rois[:, 0].long().sort(stable=True)


def _check_rois(shape: torch.Size, rois: Tensor) -> None:
    bad = ~rois.isfinite().all(1)
    if bad.any():
        index = int(bad.nonzero()[0])
        raise ValueError(f'RoI {index} is not finite: {rois[index].tolist()}')
    if not len(rois):
        return
    first, last = (int(image) for image in rois[:, 0].long().aminmax())
    if not 0 <= first <= last < shape[0]:
        raise ValueError(
            f'RoIs are of the images {first} to {last}, the batch has the images 0 to '
            f'{shape[0] - 1}'
        )
