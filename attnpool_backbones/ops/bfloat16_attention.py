"""Attention in bfloat16 on a CPU: the products of a few heads are batches that oneDNN computes.

PyTorch's fused attention keeps no maps, but its bfloat16 products take two to six times as long as
oneDNN's on some processors. Here the maps of a few heads, or of some rows of one, are in memory at
a time and stay in the caches. As in the formula under autocast, scores and maps are rounded to
bfloat16, sums and the softmax are float32.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.choice import Choice, lead

CHUNK_ELEMENTS = 2**21
"""Map values that are held at a time, if what is not parted has no more."""

SMALLEST_MAP = 2**15
"""Values of a head's map from which batches are faster than PyTorch's fused attention."""


def multiplies_batches(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Tells whether :func:`attend_by_batches` is the faster way, which the first call measures.

    Args:
        q: Queries B, H, T, d, of which nobody wants gradients.
        k: Keys B, H, N, d.
        v: Values B, H, N, d.
    """
    if any(t.device.type != 'cpu' or t.dtype != torch.bfloat16 for t in (q, k, v)):
        return False
    if q.shape[2] * k.shape[2] < SMALLEST_MAP or not torch.backends.mkldnn.enabled:
        return False
    return _multiplies()


def choose_batches(multiplies: bool | None) -> None:
    """Sets how bfloat16 attention is computed on the CPU, in place of the measurement.

    Args:
        multiplies: True for batches of products by oneDNN, False for PyTorch's fused attention,
            None to measure at the next call.
    """
    _multiplies.decision = multiplies


def attend_by_batches(
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    write_bias: Callable[[Tensor, slice, slice], None] | None = None,
    row: int = 1,
    rows: int = 0,
) -> None:
    """Writes softmax(q k^T / sqrt(d) + bias) v.

    Args:
        out: B, H, T, d.
        q: Queries B, H, T, d, bfloat16 on a CPU.
        k: Keys B, H, N, d, likewise.
        v: Values B, H, N, d, likewise.
        write_bias: Writes the bias of some heads and queries into a tensor of heads, queries, N.
            Default: none.
        row: Number of queries that are not parted. Default: 1.
        rows: Such parts of the queries at a time. Default: as many as the caches hold maps of.
    """
    _, heads, queries, width = q.shape
    keys = k.shape[2]
    at_once = min(heads, max(1, CHUNK_ELEMENTS // ((rows * row or queries) * keys)))
    rows = min(queries, (rows or max(1, CHUNK_ELEMENTS // (at_once * keys * row))) * row)
    memory = q.new_empty(at_once * rows * keys)
    for head in _slices(heads, at_once):
        for part in _slices(queries, rows):
            for image in range(len(q)):
                some = q[image, head, part]  # h, R, d
                maps = memory[: some.shape[0] * some.shape[1] * keys].view(*some.shape[:2], keys)
                if write_bias is not None:
                    write_bias(maps, head, part)
                weight = 0 if write_bias is None else 1
                keys_last = k[image, head].mT
                maps.baddbmm_(some, keys_last, beta=weight, alpha=width**-0.5)
                torch.softmax(maps, -1, out=maps)
                out[image, head, part] = torch.bmm(maps, v[image, head])


def _slices(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def batches_lead(rounds: int = 9) -> float:
    """Measures the rate of :func:`attend_by_batches` over that of PyTorch's fused attention.

    One head attends to 1024 tokens of 64 channels, see :func:`choice.lead`.

    Args:
        rounds: How often each computes.
    """
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return 0.0
    tokens = torch.full((1, 1, 1024, 64), 0.5, device='cpu', dtype=torch.bfloat16)
    out = torch.empty_like(tokens)
    return lead(
        lambda: F.scaled_dot_product_attention(tokens, tokens, tokens),
        lambda: attend_by_batches(out, tokens, tokens, tokens),
        rounds,
    )


def _tell(multiplies: bool, measured: float) -> str:
    kind = 'batches of products' if multiplies else "PyTorch's fused operator"
    return (
        f'bfloat16 attention on the CPU runs as {kind}: oneDNN computes it at {measured:.2f} '
        'times the rate of the fused operator'
    )


_multiplies = Choice('bfloat16 attention', lambda: batches_lead(), _tell)
