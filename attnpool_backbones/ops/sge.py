"""Spatial group-wise enhance (arXiv 1905.09646)."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import gradients_wanted
from attnpool_backbones.ops.precision import full_precision, wide_dtype
from attnpool_backbones.ops.sge_channels_last import enhanced_positions


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
        variance = a.square().sum(dim=(2, 3), keepdim=True) / max(a[0, 0].numel() - 1, 1)
        # A square root has no derivative at 0; a map without deviation has a = 0 anyway.
        deviation = torch.where(variance > 0, variance, 1).sqrt() * (variance > 0)  # B, G, 1, 1
        return (a / (deviation + eps) * weight.to(a.dtype) + bias.to(a.dtype)).sigmoid()


CHUNK_BYTES = 4 << 20
"""On a CPU, groups are enhanced in chunks of about this size: each of the formula's passes but the
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
    if not x.is_contiguous():
        return enhanced_positions(*inputs, eps)
    if gradients_wanted(*inputs):
        return _Enhance.apply(*inputs, eps)
    out = x if shortcut is not None else torch.empty_like(x)
    _enhance(*inputs, eps, out, None)
    return out


# Notation, per sample and group: x (d, N) with d = C/G channels and N positions; m (d, 1) the mean
# over positions; a (1, N) = m'x, centred; s its deviation; n = a / (s + eps); t = weight n + bias;
# y = x sigmoid(t). Temporaries are overwritten where they can: a fresh one costs as much as a pass.


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
    maps, groups = (x, shortcut, out), weight.shape[1]
    with full_precision(x.device):
        for xs, rs, ys, w, b in _chunks(groups, maps, (weight, bias)):
            xs_f = xs.to(w.dtype)
            m = xs_f.mean(dim=2, keepdim=True)
            # The mean of m'x over the positions is m'm.
            mean = m.square().sum(dim=1, keepdim=True)
            n = torch.bmm(m.transpose(1, 2), xs_f).sub_(mean)
            freedom = n.shape[2] - 1
            if not freedom:
                n.zero_()  # no deviation; rounding must not pass for one
                freedom = 1
            s = torch.linalg.vector_norm(n, dim=2, keepdim=True) / freedom**0.5
            if kept is None:
                gate = n.mul_(w / (s + eps))
            else:
                n /= s + eps
                gate = n * w
                kept += (m, s, n)
            gate = gate.add_(b).sigmoid_().to(xs.dtype)
            if shortcut is None:
                torch.mul(xs, gate, out=ys)
            else:
                torch.addcmul(rs, xs, gate, out=ys).relu_()


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
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, out, *kept = ctx.saved_tensors
        groups = weight.shape[1]
        dy = dy.contiguous()  # chunks of it must be views that lie like those of x
        dx = torch.empty_like(x)
        dshortcut = torch.empty_like(x) if ctx.has_shortcut else None
        dw, db = [], []
        with full_precision(x.device):
            chunks = _chunks(groups, (x, dy, out, dx, dshortcut), (weight, bias))
            for i, (xs, dys, ys, dxs, drs, w, b) in enumerate(chunks):
                m, s, n = kept[3 * i : 3 * i + 3]
                positions = xs.shape[2]
                if ctx.has_shortcut:
                    torch.ops.aten.threshold_backward.grad_input(dys, ys, 0, grad_input=drs)
                    dys = drs
                xs, dys = xs.to(w.dtype), dys.to(w.dtype)
                grad = dxs if dxs.dtype == xs.dtype else torch.empty_like(xs)
                dt = _dot(xs, dys, grad)
                gate = (n * w).add_(b).sigmoid_()
                dt *= gate
                dt.addcmul_(dt, gate, value=-1)  # dt = dgate * gate * (1 - gate)
                dw_s = torch.bmm(dt, n.transpose(1, 2))
                db_s = dt.sum(dim=2, keepdim=True)
                torch.mul(dys, gate, out=grad)
                # Through the division by s + eps and the centring; n is 0 where s is.
                through_s = w * dw_s / (max(positions - 1, 1) * s).clamp_min(1e-30)
                da = dt.sub_(db_s, alpha=1 / positions).mul_(w / (s + ctx.eps))
                da.addcmul_(n, through_s, value=-1)
                dm = torch.bmm(xs, da.transpose(1, 2))
                grad.addcmul_(m, da).add_(dm, alpha=1 / positions)
                if grad is not dxs:
                    dxs.copy_(grad)
                dw.append(dw_s)
                db.append(db_s)
        dweight, dbias = (
            torch.cat(parts).view(len(x), groups).sum(dim=0).view_as(weight).to(weight.dtype)
            for parts in (dw, db)
        )
        return dx, dweight, dbias, dshortcut, None


def _chunks(
    groups: int, maps: Sequence[Tensor | None], parameters: Sequence[Tensor]
) -> Iterator[tuple[Tensor | None, ...]]:
    """Cuts contiguous maps B, C, H, W into views g, C/G, H*W.

    Parameters, one a group, become the g, 1, 1 that belong to them, in the statistics' dtype.
    """
    x = maps[0]
    batch, dtype = len(x), wide_dtype(x.dtype)
    parameters = [p.to(dtype).view(groups, -1, 1) for p in parameters]
    # Samples and groups are one axis; a chunk may span samples.
    shape = (batch * groups, x.shape[1] // groups, x.shape[2] * x.shape[3])
    views = [None if y is None else y.view(shape) for y in maps]
    if batch != 1:
        parameters = [p.repeat(batch, 1, 1) for p in parameters]
    rows = views[0]  # groups, C/G, H*W
    size = len(rows)
    if x.device.type == 'cpu':
        size = max(CHUNK_BYTES // (rows[:1].nelement() * x.element_size() or 1), 1)
    for start in range(0, len(rows), size) if size < len(rows) else ():
        cut = slice(start, start + size)
        yield tuple(None if y is None else y[cut] for y in (*views, *parameters))
    if size >= len(rows):
        yield (*views, *parameters)


def _dot(x: Tensor, y: Tensor, scratch: Tensor) -> Tensor:
    """Sums x * y, g, d, N, over d to g, 1, N; ``scratch``, like x, may be overwritten."""
    if x.shape[1] > FEW_CHANNELS:
        return torch.mul(x, y, out=scratch).sum(dim=1, keepdim=True)
    dot = x[:, :1] * y[:, :1]
    for i in range(1, x.shape[1]):
        dot.addcmul_(x[:, i : i + 1], y[:, i : i + 1])
    return dot


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)


def _same_layout(x: Tensor, y: Tensor) -> bool:
    form = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    return x.dtype == y.dtype and x.shape == y.shape and y.is_contiguous(memory_format=form)
