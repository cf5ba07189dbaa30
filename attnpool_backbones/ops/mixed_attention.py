"""Attention whose maps are mixed across heads, exact, with memory linear in the tokens.

Mixing the heads of a softmax map (re-attention, arXiv 2103.11886; talking heads, arXiv 2003.02436)
keeps every query row to itself. So a few rows of all heads are computed, mixed, applied to the
values and forgotten; the backward pass computes them again. On a GPU, kernels of Triton do in one
pass what lies between the matrix products. The operators are opaque to ``torch.compile``, whose
graphs would otherwise grow with the number of chunks.
"""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from attnpool_backbones.ops.attention import attention_maps, empty_output
from attnpool_backbones.ops.bfloat16_attention import CHUNK_ELEMENTS as CHUNK_OF_BFLOAT16
from attnpool_backbones.ops.bfloat16_attention import multiplies_batches
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.own_operator import own_operator
from attnpool_backbones.ops.precision import full_precision, wide_dtype


@operator
def mixed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    matrix: Tensor,
    offset: Tensor | None = None,
    eps: float | None = None,
    chunk_rows: int = 0,
) -> Tensor:
    """Returns norm(matrix @ softmax(q k^T / sqrt(d)) + offset) v, ``matrix`` acting on heads.

    Forward and backward pass hold the maps of a few query rows at a time and q, k, v besides.
    Maps are float32 (float64 for float64 inputs), also under autocast; bfloat16 in forward passes
    without ``offset`` and ``eps`` on a CPU that multiplies those much faster.

    Args:
        q: Queries B, H, T, d.
        k: Keys B, H, N, d.
        v: Values B, H, N, d, of the queries' type, as the keys.
        matrix: H, H, float32 or float64: row g tells how the maps of all heads make map g.
        offset: H, added to the mixed maps. Default: nothing.
        eps: If given, each entry's H mixed values are divided by sqrt(mean of squares + eps).
            Default: they are not.
        chunk_rows: Query rows held at a time. Default: as many as suit the device.

    Returns:
        B, H, T, d, with the heads next to the channels in memory.
    """
    maps = attention_maps(q, k).to(matrix.dtype)  # B, H, T, N
    mixed = (matrix @ maps.flatten(2)).view_as(maps)  # B, H, T, N
    if offset is not None:
        mixed = mixed + offset.view(-1, 1, 1)
    if eps is not None:
        mixed = mixed / (mixed.square().mean(1, keepdim=True) + eps).sqrt()
    return mixed.to(v.dtype) @ v  # B, H, T, d


@operator
def map_covariance(q: Tensor, k: Tensor, chunk_rows: int = 0) -> Tensor:
    """Returns the covariance between heads of the entries of softmax(q k^T / sqrt(d)).

    Every row of a map sums to 1, so the mean of its entries is 1 / N. Mean and variance of any
    combination theta of the heads follow: theta sum / N and theta cov theta^T.

    Args:
        q: Queries B, H, T, d.
        k: Keys B, H, N, d.
        chunk_rows: Query rows held at a time. Default: as many as suit the device.

    Returns:
        H, H, over all images, queries and keys, float32 (float64 for float64 inputs).
    """
    maps = attention_maps(q, k).to(wide_dtype(q.dtype)).transpose(0, 1).flatten(1)  # H, B*T*N
    deviation = maps - 1 / k.shape[2]
    return deviation @ deviation.mT / maps.shape[1]  # H, H


@mixed_attention.fast(traced=False)
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    matrix: Tensor,
    offset: Tensor | None = None,
    eps: float | None = None,
    chunk_rows: int = 0,
) -> Tensor:
    wide = wide_dtype(q.dtype)
    offset = None if offset is None else offset.to(wide)
    return _mixed_attention(q, k, v, matrix.to(wide), offset, eps, chunk_rows)


@map_covariance.fast(traced=False)
def _(q: Tensor, k: Tensor, chunk_rows: int = 0) -> Tensor:
    return _map_covariance(q, k, chunk_rows)


CHUNK_ELEMENTS = {'cpu': 2**20, 'cuda': 2**26}
"""Map values of a chunk on each device type: on a CPU as many as stay in its caches."""

MIN_CHUNK_ROWS = 32
"""Fewer rows make the matrix products inefficient."""


def _chunks(
    q: Tensor, k: Tensor, chunk_rows: int, budget: int = 0
) -> Iterator[tuple[slice, slice]]:
    """Yields (images, query rows) slices that cover q B, H, T, d once."""
    batch, heads, queries, _ = q.shape
    budget = budget or CHUNK_ELEMENTS.get(q.device.type, CHUNK_ELEMENTS['cuda'])
    per_row = heads * k.shape[2]
    rows = min(queries, chunk_rows or max(MIN_CHUNK_ROWS, budget // per_row))
    images = max(1, min(batch, budget // (per_row * rows)))
    for image in range(0, batch, images):
        for row in range(0, queries, rows):
            yield slice(image, image + images), slice(row, row + rows)


class _Scratch:
    """Memory for the maps of a chunk, taken once: fresh pages cost as much as the arithmetic.

    Args:
        like: Tells the device.
    """

    def __init__(self, like: Tensor):
        self.device = like.device
        self.buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Returns an uninitialised tensor; what went by the same name and type is overwritten."""
        size = math.prod(shape)
        buffer = self.buffers.get((name, dtype))
        if buffer is None or len(buffer) < size:
            buffer = torch.empty(size, dtype=dtype, device=self.device)
            self.buffers[name, dtype] = buffer
        return buffer[:size].view(shape)


def _product(scratch: _Scratch, name: str, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
    """Returns ``scale * a @ b`` of b, H, R, n and b, H, n, m in the memory called ``name``."""
    shape = (*a.shape[:3], b.shape[3])
    out = scratch(name, shape, a.dtype)
    flat = out.flatten(0, 1)
    torch.baddbmm(flat, a.flatten(0, 1), b.flatten(0, 1), beta=0, alpha=scale, out=flat)
    return out


def _add_product(total: Tensor, a: Tensor, b: Tensor, scale: float = 1.0) -> None:
    """Adds ``scale * a @ b`` to ``total``, which may be of a wider type."""
    total, a, b = (t.flatten(0, 1) for t in (total, a, b))
    if total.dtype == a.dtype:
        total.baddbmm_(a, b, alpha=scale)
    else:
        total.add_(torch.bmm(a, b), alpha=scale)


def _scores(scratch: _Scratch, name: str, q: Tensor, k: Tensor) -> Tensor:
    """Returns q k^T / sqrt(d), b, H, R, N, of the rows q b, H, R, d."""
    return _product(scratch, name, q, k.mT, q.shape[-1] ** -0.5)


def _maps(scratch: _Scratch, q: Tensor, k: Tensor) -> Tensor:
    """Returns softmax(q k^T / sqrt(d)), b, H, R, N, of the rows q b, H, R, d, in a wide type."""
    wide = wide_dtype(q.dtype)
    # One memory for scores and maps, unless their types differ: caches hold more of the rest.
    scores = _scores(scratch, 'maps' if wide == q.dtype else 'work', q, k)
    if wide != q.dtype and q.device.type == 'cuda':  # into given memory it copies scores first
        return scores.softmax(-1, dtype=wide)
    return torch.softmax(scores, -1, dtype=wide, out=scratch('maps', scores.shape, wide))


def _add_map_gradients(
    scratch: _Scratch, grad: Tensor, maps: Tensor, q: Tensor, k: Tensor, dq: Tensor, dk: Tensor
) -> None:
    """Writes the gradient of :func:`_maps` to q into ``dq`` and adds that to k to ``dk``."""
    scores = scratch('work', maps.shape, maps.dtype)
    torch._softmax_backward_data(grad, maps, -1, maps.dtype, grad_input=scores)
    _add_score_gradients(scratch, scores.to(q.dtype), q, k, dq, dk)


def _add_score_gradients(
    scratch: _Scratch, grad: Tensor, q: Tensor, k: Tensor, dq: Tensor, dk: Tensor
) -> None:
    """Writes the gradient of :func:`_scores` to q into ``dq`` and adds that to k to ``dk``."""
    scale = q.shape[-1] ** -0.5
    dq.copy_(_product(scratch, 'rows', grad, k, scale))
    _add_product(dk, grad.mT, q, scale)


def _mix(scratch: _Scratch, name: str, matrix: Tensor, maps: Tensor) -> Tensor:
    """Returns the combinations of maps b, H, R, N over heads that the rows of a matrix tell."""
    out = scratch(name, maps.shape, maps.dtype)
    if len(maps) == 1:  # One plain product is a good deal faster than a batched one of one.
        torch.mm(matrix, maps[0].flatten(1), out=out[0].flatten(1))
    else:
        batch = matrix.expand(len(maps), -1, -1)
        torch.bmm(batch, maps.flatten(2), out=out.flatten(2))
    return out


def _sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """Returns the sums over images, rows and columns of a_g * b_h for all pairs of heads, H, H."""
    # Row by row, for a library splits a batch among threads, but not a long inner axis.
    return torch.matmul(a.transpose(1, 2), b.permute(0, 2, 3, 1)).sum((0, 1))


def _inverse_rms(maps: Tensor, eps: float) -> Tensor:
    """Returns 1 / root mean square over heads, b, 1, R, N."""
    return maps.square().mean(1, keepdim=True).add_(eps).rsqrt_()


def _fused_kernels(q: Tensor) -> ModuleType | None:
    """Returns the kernels that mix the maps of queries B, H, T, d, where they suit."""
    if q.device.type != 'cuda' or q.dtype == torch.float64:
        return None
    try:
        from attnpool_backbones.ops import mixing_kernels
    except ImportError:  # PyTorch has Triton with it on Linux only
        return None
    suit = q.shape[1] <= mixing_kernels.MAX_HEADS and mixing_kernels.compiles(q.device)
    return mixing_kernels if suit else None


def _with_zero_keys(x: Tensor, multiple: int) -> Tensor:
    """Appends zeros to keys or values B, H, N, d until N is a multiple of a number."""
    missing = -x.shape[2] % multiple
    return F.pad(x, (0, 0, 0, missing)) if missing else x


@own_operator('mixed_attention')
def _mixed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    matrix: Tensor,
    offset: Tensor | None,
    eps: float | None,
    chunk_rows: int,
) -> Tensor:
    out = empty_output(q, v)
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    if offset is None and eps is None and multiplies_batches(q, k, v):
        _attend_in_bfloat16(out, q, k, v, matrix, chunk_rows)
        return out
    scratch, kernels, keys = _Scratch(q), _fused_kernels(q), k.shape[2]
    if kernels:
        k, v = (_with_zero_keys(t, kernels.ALIGNMENT) for t in (k, v))
    with full_precision(q.device):
        for images, rows in _chunks(q, k, chunk_rows):
            if kernels:
                scores = _scores(scratch, 'maps', q[images, :, rows], k[images])
                mixed = kernels.mix_rows(scores, matrix, offset, eps, keys)
                out[images, :, rows] = _product(scratch, 'rows', mixed, v[images])
                continue
            maps = _maps(scratch, q[images, :, rows], k[images])  # b, H, R, N
            mixed = _mix(scratch, 'work', matrix, maps)
            if offset is not None:
                mixed.add_(offset.view(-1, 1, 1))
            if eps is not None:
                mixed.mul_(_inverse_rms(mixed, eps))
            out[images, :, rows] = _product(scratch, 'rows', mixed.to(v.dtype), v[images])
    return out


def _attend_in_bfloat16(
    out: Tensor, q: Tensor, k: Tensor, v: Tensor, matrix: Tensor, chunk_rows: int
) -> None:
    # Rows of softmax maps sum to 1, so what is common to all values has a known part in the result.
    # Without it there, the roundings of maps and matrix count less than half.
    common = v.mean(2, keepdim=True, dtype=matrix.dtype)  # B, H, 1, d
    v = (v - common).to(v.dtype)
    common = matrix.sum(1).view(-1, 1, 1) * common
    matrix, scratch, scale = matrix.to(q.dtype), _Scratch(q), q.shape[-1] ** -0.5
    with full_precision(q.device):
        for images, rows in _chunks(q, k, chunk_rows, CHUNK_OF_BFLOAT16):
            maps = _product(scratch, 'maps', q[images, :, rows], k[images].mT, scale)
            mixed = _mix(scratch, 'work', matrix, torch.softmax(maps, -1, out=maps))
            y = _product(scratch, 'rows', mixed, v[images])
            torch.add(y, common[images], out=out[images, :, rows])


@_mixed_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, matrix: Tensor, offset: Tensor, eps: float, chunk_rows: int
) -> Tensor:
    return empty_output(q, v)


@own_operator('mixed_attention_backward')
def _mixed_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    matrix: Tensor,
    offset: Tensor | None,
    eps: float | None,
    chunk_rows: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad, q, k, v = (t.contiguous() for t in (grad, q, k, v))
    scratch, kernels, keys = _Scratch(q), _fused_kernels(q), k.shape[2]
    if kernels:
        k, v = (_with_zero_keys(t, kernels.ALIGNMENT) for t in (k, v))
    dq = torch.empty_like(q)
    dk = torch.zeros_like(k, dtype=wide_dtype(k.dtype))
    dv = torch.zeros_like(v, dtype=wide_dtype(v.dtype))
    dmatrix = torch.zeros_like(matrix)
    doffset = matrix.new_zeros(len(matrix))
    with full_precision(q.device):
        for images, rows in _chunks(q, k, chunk_rows):
            q_rows, k_all, grad_rows = q[images, :, rows], k[images], grad[images, :, rows]
            if kernels:
                scores = _scores(scratch, 'maps', q_rows, k_all)
                mixed = scratch('mixed', scores.shape, v.dtype)
                dscores = _product(scratch, 'gradient', grad_rows, v[images].mT)
                sums = kernels.mix_rows_backward(scores, dscores, mixed, matrix, offset, eps, keys)
                dmatrix += sums[0]
                doffset += sums[1]
                _add_product(dv[images], mixed.mT, grad_rows)
                _add_score_gradients(
                    scratch, dscores, q_rows, k_all, dq[images, :, rows], dk[images]
                )
                continue
            maps = _maps(scratch, q_rows, k_all)  # b, H, R, N
            mixed = _mix(scratch, 'work', matrix, maps)
            if offset is not None:
                mixed.add_(offset.view(-1, 1, 1))
            if eps is not None:
                inverse = _inverse_rms(mixed, eps)
                mixed.mul_(inverse)
            _add_product(dv[images], mixed.to(v.dtype).mT, grad_rows)
            dmixed = _product(scratch, 'gradient', grad_rows, v[images].mT).to(maps.dtype)
            if eps is not None:
                dmixed.sub_(mixed * (dmixed * mixed).mean(1, keepdim=True)).mul_(inverse)
            if offset is not None:
                doffset += dmixed.sum((0, 2, 3))
            dmatrix += _sum_of_products(dmixed, maps)
            dmaps = _mix(scratch, 'mixed gradient', matrix.mT, dmixed)
            _add_map_gradients(scratch, dmaps, maps, q_rows, k_all, dq[images, :, rows], dk[images])
    dk, dv = (t[:, :, :keys].to(q.dtype).contiguous() for t in (dk, dv))
    return dq, dk, dv, dmatrix, doffset


@_mixed_attention_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    matrix: Tensor,
    offset: Tensor,
    eps: float,
    chunk_rows: int,
) -> tuple:
    tokens = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
    return (*tokens, torch.empty_like(matrix), matrix.new_empty(len(matrix)))


def _save_mixed_attention(ctx: Any, inputs: tuple, output: Any) -> None:
    *tensors, ctx.eps, ctx.chunk_rows = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_mixed_attention(ctx: Any, grad: Tensor) -> tuple:
    *tensors, offset = ctx.saved_tensors
    dq, dk, dv, dmatrix, doffset = _mixed_attention_backward(
        grad, *tensors, offset, ctx.eps, ctx.chunk_rows
    )
    return dq, dk, dv, dmatrix, None if offset is None else doffset, None, None


_mixed_attention.register_autograd(
    _differentiate_mixed_attention, setup_context=_save_mixed_attention
)


@own_operator('map_covariance')
def _map_covariance(q: Tensor, k: Tensor, chunk_rows: int) -> Tensor:
    q, k = q.contiguous(), k.contiguous()
    scratch, kernels, keys = _Scratch(q), _fused_kernels(q), k.shape[2]
    if kernels:
        k = _with_zero_keys(k, kernels.ALIGNMENT)
    total = q.new_zeros(q.shape[1], q.shape[1], dtype=wide_dtype(q.dtype))
    with full_precision(q.device):
        for images, rows in _chunks(q, k, chunk_rows):
            # A row's mean is 1 / N exactly; squares of the rest do not lose digits.
            if kernels:
                scores = _scores(scratch, 'maps', q[images, :, rows], k[images])
                total += kernels.map_products(scores, keys)
                continue
            maps = _maps(scratch, q[images, :, rows], k[images]).sub_(1 / keys)
            total += _sum_of_products(maps, maps)
    return total / (q.shape[0] * q.shape[2] * keys)


@_map_covariance.register_fake
def _(q: Tensor, k: Tensor, chunk_rows: int) -> Tensor:
    return q.new_empty(q.shape[1], q.shape[1], dtype=wide_dtype(q.dtype))


@own_operator('map_covariance_backward')
def _map_covariance_backward(
    grad: Tensor, q: Tensor, k: Tensor, chunk_rows: int
) -> tuple[Tensor, Tensor]:
    q, k = q.contiguous(), k.contiguous()
    scratch, kernels, keys = _Scratch(q), _fused_kernels(q), k.shape[2]
    if kernels:
        k = _with_zero_keys(k, kernels.ALIGNMENT)
    dq = torch.empty_like(q)
    dk = torch.zeros_like(k, dtype=wide_dtype(k.dtype))
    grad = (grad + grad.mT) / (q.shape[0] * q.shape[2] * keys)
    with full_precision(q.device):
        for images, rows in _chunks(q, k, chunk_rows):
            q_rows, k_all = q[images, :, rows], k[images]
            gradients = dq[images, :, rows], dk[images]
            if kernels:
                scores = _scores(scratch, 'maps', q_rows, k_all)
                scores = kernels.map_products_backward(scores, grad, keys)
                _add_score_gradients(scratch, scores, q_rows, k_all, *gradients)
                continue
            maps = _maps(scratch, q_rows, k_all)  # b, H, R, N
            # The mean needs no subtraction: the softmax passes no gradient that a row shares.
            dmaps = _mix(scratch, 'gradient', grad, maps)
            _add_map_gradients(scratch, dmaps, maps, q_rows, k_all, *gradients)
    return dq, dk[:, :, :keys].to(k.dtype).contiguous()


@_map_covariance_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, chunk_rows: int) -> tuple:
    dq, dk = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k))
    return dq, dk


def _save_map_covariance(ctx: Any, inputs: tuple, output: Any) -> None:
    q, k, ctx.chunk_rows = inputs
    ctx.save_for_backward(q, k)


def _differentiate_map_covariance(ctx: Any, grad: Tensor) -> tuple:
    return *_map_covariance_backward(grad, *ctx.saved_tensors, ctx.chunk_rows), None


_map_covariance.register_autograd(_differentiate_map_covariance, setup_context=_save_map_covariance)


@register_flop_formula(torch.ops.attnpool_backbones.mixed_attention)
def _count_mixed_attention(
    q_shape: torch.Size,
    k_shape: torch.Size,
    v_shape: torch.Size,
    matrix_shape: torch.Size,
    *args,
    **kwargs,
) -> int:
    batch, heads, queries, width = q_shape
    return 2 * batch * heads * queries * k_shape[2] * (width + heads + v_shape[3])


@register_flop_formula(torch.ops.attnpool_backbones.map_covariance)
def _count_map_covariance(q_shape: torch.Size, k_shape: torch.Size, *args, **kwargs) -> int:
    batch, heads, queries, width = q_shape
    return 2 * batch * heads * queries * k_shape[2] * (width + heads)
