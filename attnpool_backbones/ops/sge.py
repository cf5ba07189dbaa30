"""Spatial group-wise enhance (arXiv 1905.09646)."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from attnpool_backbones.ops.channel_groups import group_sums, repeated, suits_products
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import gradients_wanted, once_differentiable
from attnpool_backbones.ops.precision import full_precision, wide_dtype


@operator
def sge(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    shortcut: Tensor | None = None,
    normalize: bool = True,
) -> Tensor:
    """Returns x * gate, or relu(shortcut + x * gate) (arXiv 1905.09646, eq. 1-5).

    The forward and the backward pass are written by hand, so that a map is read and written once
    each and only the map itself and one value per group and position are kept for the backward
    pass.

    Args:
        x: Map B, C, H, W; overwritten where no gradients are wanted and there is a ``shortcut``.
        weight: Scale of each group's gate, 1, G, 1, 1; G divides C.
        bias: Shift of each group's gate, 1, G, 1, 1.
        eps: Added to the standard deviation.
        shortcut: Map of the shape of ``x``; the end of a residual block is computed along.
            Default: none.
        normalize: Whether similarities are normalised over the positions; False (the article's
            ablation) has no fast form. Default: True.
    """
    gate = sge_gate(x, weight, bias, eps, normalize)[:, :, None]  # B, G, 1, H, W
    y = (x.unflatten(1, (weight.shape[1], -1)) * gate.to(x.dtype)).flatten(1, 2)  # B, C, H, W
    return y if shortcut is None else torch.relu(shortcut + y)


def sge_gate(x: Tensor, weight: Tensor, bias: Tensor, eps: float, normalize: bool = True) -> Tensor:
    """Returns the gate B, G, H, W of :func:`sge`, between 0 and 1, at least float32."""
    with full_precision(x.device):
        x = x.to(wide_dtype(x.dtype)).unflatten(1, (weight.shape[1], -1))  # B, G, C/G, H, W
        mean = x.mean(dim=(3, 4), keepdim=True)  # B, G, C/G, 1, 1
        a = (x * mean).sum(dim=2)  # B, G, H, W
        if not normalize:
            return (a * weight.to(a.dtype) + bias.to(a.dtype)).sigmoid()
        a = a - a.mean(dim=(2, 3), keepdim=True)
        variance = a.square().sum(dim=(2, 3), keepdim=True) / max(a.shape[2] * a.shape[3] - 1, 1)
        # A square root has no derivative at 0; a map without deviation has a = 0 anyway.
        deviation = torch.where(variance > 0, variance, 1).sqrt() * (variance > 0)  # B, G, 1, 1
        return (a / (deviation + eps) * weight.to(a.dtype) + bias.to(a.dtype)).sigmoid()


CHUNK_BYTES = 4 << 20
"""On a CPU, maps are enhanced in chunks of about this size: each of the formula's passes but the
first then finds its chunk in the cache."""
FEW_CHANNELS = 8
"""Up to so many channels a group, sums over them go channel by channel, without a map between."""


@sge.fast(compiled=False)
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    shortcut: Tensor | None = None,
    normalize: bool = True,
) -> Tensor:
    if not normalize:
        return sge.formula(x, weight, bias, eps, shortcut, normalize)
    if not _is_dense(x):
        x = x.contiguous()
    if shortcut is not None and not _same_layout(x, shortcut):
        return torch.relu(shortcut + sge(x, weight, bias, eps))
    inputs = (x, weight, bias, shortcut)
    if gradients_wanted(*inputs):
        return _Enhance.apply(*inputs, eps)
    out = x if shortcut is not None else torch.empty_like(x)
    _enhance(*inputs, eps, out, None)
    return out


# Notation, per sample and group: x (d, N) with d = C/G channels and N positions; m (d, 1) the mean
# over positions; a (1, N) = m'x, centred; s its deviation; n = a / (s + eps); t = weight n + bias;
# y = x sigmoid(t). The two layouts name the axes of d and N and compute the sums over them; all
# keep both axes. Temporaries are overwritten where they can: a fresh one costs as much as a pass.


class _PositionsTogether:
    """Contiguous maps, as views g, d, N of some groups, of one sample or several."""

    channels: ClassVar[int] = 1
    positions: ClassVar[int] = 2

    @staticmethod
    def parts(
        groups: int, maps: Sequence[Tensor | None], parameters: Sequence[Tensor]
    ) -> Iterator[list[Tensor | None]]:
        x = maps[0]
        # Samples and groups are one axis; a chunk may span samples.
        shape = (len(x) * groups, x.shape[1] // groups, x.shape[2] * x.shape[3])
        views = [None if y is None else y.view(shape) for y in maps]
        parameters = [p.view(groups, 1, 1).repeat(len(x), 1, 1) for p in parameters]
        yield from _cut([*views, *parameters], 0, views[0])

    @staticmethod
    def dot_mean(m: Tensor, x: Tensor) -> Tensor:
        return torch.bmm(m.transpose(1, 2), x)

    @staticmethod
    def dot(x: Tensor, y: Tensor, scratch: Tensor) -> Tensor:
        if x.shape[1] > FEW_CHANNELS:
            return torch.mul(x, y, out=scratch).sum(dim=1, keepdim=True)
        dot = x[:, :1] * y[:, :1]
        for i in range(1, x.shape[1]):
            dot.addcmul_(x[:, i : i + 1], y[:, i : i + 1])
        return dot

    @staticmethod
    def position_sums(x: Tensor, a: Tensor, scratch: Tensor) -> Tensor:
        return torch.bmm(x, a.transpose(1, 2))

    @staticmethod
    def spread(a: Tensor, channels: int) -> Tensor:
        return a

    @staticmethod
    def pieces(maps: Sequence[Tensor | None]) -> Iterator[Sequence[Tensor | None]]:
        yield maps  # a part is small already


class _ChannelsTogether:
    """``channels_last`` maps, as views 1, N, G, d of one sample."""

    channels: ClassVar[int] = 3
    positions: ClassVar[int] = 1

    @staticmethod
    def parts(
        groups: int, maps: Sequence[Tensor | None], parameters: Sequence[Tensor]
    ) -> Iterator[list[Tensor | None]]:
        parameters = [p.view(1, 1, groups, 1) for p in parameters]
        for i in range(len(maps[0])):
            samples = [None if y is None else y[i : i + 1].permute(0, 2, 3, 1) for y in maps]
            grouped = [
                None if y is None else y.flatten(1, 2).unflatten(2, (groups, -1)) for y in samples
            ]
            yield [*grouped, *parameters]

    @staticmethod
    def dot_mean(m: Tensor, x: Tensor) -> Tensor:
        return group_sums(x, m) if suits_products(x) else (x * m).sum(dim=3, keepdim=True)

    @staticmethod
    def dot(x: Tensor, y: Tensor, scratch: Tensor) -> Tensor:
        products = torch.mul(x, y, out=scratch)
        return group_sums(products) if suits_products(x) else products.sum(dim=3, keepdim=True)

    @staticmethod
    def position_sums(x: Tensor, a: Tensor, scratch: Tensor) -> Tensor:
        return torch.mul(x, a, out=scratch).sum(dim=1, keepdim=True)

    @staticmethod
    def spread(a: Tensor, channels: int) -> Tensor:
        return repeated(a, channels) if suits_products(a, channels) else a

    @staticmethod
    def pieces(maps: Sequence[Tensor | None]) -> Iterator[Sequence[Tensor | None]]:
        yield from _cut(maps, 1, maps[0])


_Layout = type[_PositionsTogether] | type[_ChannelsTogether]


def _layout(x: Tensor) -> _Layout:
    return _PositionsTogether if x.is_contiguous() else _ChannelsTogether


def _cut(
    tensors: Sequence[Tensor | None], dim: int, x: Tensor
) -> Iterator[Sequence[Tensor | None]]:
    """Cuts tensors along an axis that all of them have, on a CPU, so that x is in small chunks."""
    size, length = x.shape[dim], x.shape[dim]
    if x.device.type == 'cpu':
        size = max(CHUNK_BYTES * length // (x.nelement() * x.element_size() or 1), 1)
    if size >= length:
        yield tensors
        return
    for start in range(0, length, size):
        step = min(size, length - start)
        yield [None if y is None else y.narrow(dim, start, step) for y in tensors]


def _enhance(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    shortcut: Tensor | None,
    eps: float,
    out: Tensor,
    kept: list[Tensor] | None,
) -> None:
    """Writes the enhanced map into ``out`` and what the backward pass needs into ``kept``."""
    form, groups = _layout(x), weight.shape[1]
    parameters = [p.to(wide_dtype(x.dtype)) for p in (weight, bias)]
    with full_precision(x.device):
        for xs, rs, ys, w, b in form.parts(groups, (x, shortcut, out), parameters):
            xs_f = xs.to(w.dtype)
            m = xs_f.mean(dim=form.positions, keepdim=True)
            # The mean of m'x over the positions is m'm.
            mean = m.square().sum(dim=form.channels, keepdim=True)
            n = form.dot_mean(m, xs_f).sub_(mean)
            freedom = n.shape[form.positions] - 1
            if not freedom:
                n.zero_()  # no deviation; rounding must not pass for one
                freedom = 1
            s = torch.linalg.vector_norm(n, dim=form.positions, keepdim=True) / freedom**0.5
            if kept is None:
                gate = n.mul_(w / (s + eps))
            else:
                n /= s + eps
                gate = n * w
                kept += (m, s, n)
            gate = gate.add_(b).sigmoid_()
            for xp, rp, yp, part in form.pieces((xs, rs, ys, gate)):
                factor = form.spread(part, xp.shape[form.channels]).to(xp.dtype)
                if rp is None:
                    torch.mul(xp, factor, out=yp)
                else:
                    torch.addcmul(rp, xp, factor, out=yp).relu_()


class _Enhance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        shortcut: Tensor | None,
        eps: float,
    ) -> Tensor:
        out = torch.empty_like(x)
        kept: list[Tensor] = []
        _enhance(x, weight, bias, shortcut, eps, out, kept)
        ctx.eps = eps
        ctx.has_shortcut = shortcut is not None
        ctx.save_for_backward(x, weight, bias, out if ctx.has_shortcut else None, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, saved: tuple[Tensor | None, ...], dy: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight, bias, out, *kept = saved
        form, groups = _layout(x), weight.shape[1]
        # parts of it must be views that lie like those of x
        together = form is _PositionsTogether
        memory_format = torch.contiguous_format if together else torch.channels_last
        dy = dy.contiguous(memory_format=memory_format)
        dx = torch.empty_like(x)
        dshortcut = torch.empty_like(x) if ctx.has_shortcut else None
        dw, db = [], []
        parameters = [p.to(wide_dtype(x.dtype)) for p in (weight, bias)]
        with full_precision(x.device):
            parts = form.parts(groups, (x, dy, out, dx, dshortcut), parameters)
            for i, (xs, dys, ys, dxs, drs, w, b) in enumerate(parts):
                m, s, n = kept[3 * i : 3 * i + 3]
                positions, d = xs.shape[form.positions], xs.shape[form.channels]
                if ctx.has_shortcut:
                    torch.ops.aten.threshold_backward.grad_input(dys, ys, 0, grad_input=drs)
                    dys = drs
                xs, dys = xs.to(w.dtype), dys.to(w.dtype)
                grad = dxs if dxs.dtype == xs.dtype else torch.empty_like(xs)
                dt = form.dot(xs, dys, grad)
                gate = (n * w).add_(b).sigmoid_()
                dt *= gate
                dt.addcmul_(dt, gate, value=-1)  # dt = dgate * gate * (1 - gate)
                dw_s = (dt * n).sum(dim=form.positions, keepdim=True)
                db_s = dt.sum(dim=form.positions, keepdim=True)
                # Through the division by s + eps and the centring; n is 0 where s is.
                through_s = w * dw_s / (max(positions - 1, 1) * s).clamp_min(1e-30)
                da = dt.sub_(db_s, alpha=1 / positions).mul_(w / (s + ctx.eps))
                da.addcmul_(n, through_s, value=-1)
                dm = torch.zeros_like(m)
                for xp, dyp, gp, gate_p, da_p in form.pieces((xs, dys, grad, gate, da)):
                    da_p = form.spread(da_p, d)
                    dm += form.position_sums(xp, da_p, gp)
                    torch.mul(dyp, form.spread(gate_p, d), out=gp).addcmul_(m, da_p)
                grad.add_(dm, alpha=1 / positions)
                if grad is not dxs:
                    dxs.copy_(grad)
                dw.append(dw_s.flatten())
                db.append(db_s.flatten())
        dweight, dbias = (
            torch.cat(sums).view(len(x), groups).sum(dim=0).view_as(weight).to(weight.dtype)
            for sums in (dw, db)
        )
        return dx, dweight, dbias, dshortcut, None


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)


def _same_layout(x: Tensor, y: Tensor) -> bool:
    form = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    return x.dtype == y.dtype and x.shape == y.shape and y.is_contiguous(memory_format=form)
