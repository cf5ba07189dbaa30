"""The fast form of SGE (arXiv 1905.09646) where the channels of a position lie together.

Notation: d = C/G channels, N positions; x is (B, N, G, d); m (B, 1, G, d) its mean over the
positions; a (B, N, G) = m'x, centred; s (B, 1, G) its deviation; n = a / (s + eps);
t = weight n + bias; y = x sigmoid(t). Sums over d need no map of their own here, so there are no
chunks; temporary maps are overwritten where they can.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from attnpool_backbones.ops.gradients import gradients_wanted
from attnpool_backbones.ops.precision import full_precision, wide_dtype


def enhanced_positions(
    x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, eps: float
) -> Tensor:
    """Returns what :func:`attnpool_backbones.ops.sge.sge` does, of ``channels_last`` maps.

    Args:
        x: Map B, C, H, W; overwritten where no gradients are wanted and there is a ``shortcut``.
        weight: Scale of each group's gate, 1, G, 1, 1.
        bias: Shift of each group's gate, 1, G, 1, 1.
        shortcut: Map like ``x``, or None.
        eps: Added to the standard deviation.
    """
    if gradients_wanted(x, weight, bias, shortcut):
        return _Enhance.apply(x, weight, bias, shortcut, eps)
    out = x if shortcut is not None else torch.empty_like(x)
    _enhance(x, weight, bias, shortcut, eps, out)
    return out


def _grouped(x: Tensor | None, groups: int) -> Tensor | None:
    return None if x is None else x.permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (groups, -1))


def _wide(x: Tensor, *parameters: Tensor) -> list[Tensor]:
    return [p.to(wide_dtype(x.dtype)).flatten() for p in parameters]


def _enhance(
    x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, eps: float, out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Writes the enhanced map into ``out``; returns m, s and n."""
    x, shortcut, out = (_grouped(y, weight.shape[1]) for y in (x, shortcut, out))
    w, b = _wide(x, weight, bias)
    with full_precision(x.device):
        xs = x.to(w.dtype)
        m = xs.mean(dim=1, keepdim=True)
        # The mean of m'x over the positions is m'm.
        n = torch.linalg.vecdot(xs, m).sub_(m.square().sum(dim=3))
        freedom = n.shape[1] - 1
        if not freedom:
            n.zero_()  # no deviation; rounding must not pass for one
            freedom = 1
        s = torch.linalg.vector_norm(n, dim=1, keepdim=True) / freedom**0.5
        n /= s + eps
        gate = (n * w).add_(b).sigmoid_().to(x.dtype)[..., None]
        if shortcut is None:
            torch.mul(x, gate, out=out)
        else:
            torch.addcmul(shortcut, x, gate, out=out).relu_()
    return m, s, n


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
        kept = _enhance(x, weight, bias, shortcut, eps, out)
        ctx.eps = eps
        ctx.has_shortcut = shortcut is not None
        ctx.save_for_backward(x, weight, bias, out if ctx.has_shortcut else None, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x_map, weight, bias, out, m, s, n = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx_map = torch.empty_like(x_map)
        dshortcut = None
        if ctx.has_shortcut:
            dshortcut = torch.ops.aten.threshold_backward(dy, out, 0)
            dy = dshortcut
        x, dy, dx = (_grouped(y, weight.shape[1]) for y in (x_map, dy, dx_map))
        w, b = _wide(x, weight, bias)
        positions = x.shape[1]
        with full_precision(x.device):
            xs, dys = x.to(w.dtype), dy.to(w.dtype)
            grad = dx if dx.dtype == xs.dtype else torch.empty_like(xs)
            dt = torch.linalg.vecdot(xs, dys)
            gate = (n * w).add_(b).sigmoid_()
            dt *= gate
            dt.addcmul_(dt, gate, value=-1)  # dt = dgate * gate * (1 - gate)
            dw = (dt * n).sum(dim=1, keepdim=True)
            db = dt.sum(dim=1, keepdim=True)
            # Through the division by s + eps and the centring; n is 0 where s is.
            through_s = w * dw / (max(positions - 1, 1) * s).clamp_min(1e-30)
            da = dt.sub_(db, alpha=1 / positions).mul_(w / (s + ctx.eps))
            da.addcmul_(n, through_s, value=-1)
            dm = torch.mul(xs, da[..., None], out=grad).sum(dim=1, keepdim=True)
            torch.mul(dys, gate[..., None], out=grad)
            grad.addcmul_(da[..., None], m).add_(dm, alpha=1 / positions)
            if grad is not dx:
                dx.copy_(grad)
        dweight, dbias = (p.sum(dim=0).view_as(weight).to(weight.dtype) for p in (dw, db))
        return dx_map, dweight, dbias, dshortcut, None
