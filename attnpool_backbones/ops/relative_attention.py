"""Self-attention over a grid with a bias per offset (CoAtNet, arXiv 2106.04803), in linear memory.

The bias of one query row and all keys is a window of the table of offsets, so a few grid rows of
queries are computed at a time and forgotten; the backward pass computes them again. No index, map
or bias of tokens x tokens exists. The operators are opaque to ``torch.compile``, whose graphs would
otherwise grow with the number of chunks and keep their maps.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from attnpool_backbones.ops.attention import attention_maps, empty_output
from attnpool_backbones.ops.bfloat16_attention import attend_by_batches, multiplies_batches
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.onednn import onednn_product
from attnpool_backbones.ops.own_operator import own_operator
from attnpool_backbones.ops.precision import full_precision, wide_dtype
from attnpool_backbones.ops.product import multiplies_heads


@operator
def relative_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, chunk_rows: int = 0
) -> Tensor:
    """Returns softmax(q k^T / sqrt(d) + bias) v over a grid (arXiv 2106.04803, section 3.1).

    The bias of query (p, q) and key (r, s) is ``table[:, p - r + H - 1, q - s + W - 1]``.
    Forward and backward pass hold the maps of a few grid rows of queries at a time. Softmax and
    sums of the backward pass are float32 (float64 for float64 inputs), also under autocast.

    Args:
        q: Queries B, h, H*W, d; tokens run along the rows of the grid.
        k: Keys, as the queries.
        v: Values, as the queries.
        table: Bias of each head and offset, h, 2H-1, 2W-1. It tells the grid.
        chunk_rows: Grid rows of queries held at a time. Default: as many as suit the device.

    Returns:
        B, h, H*W, d, with the heads next to the channels in memory.

    Raises:
        ValueError: The table is not of as many heads or of such a grid.
    """
    check_table(q, table)
    return attention_maps(q, k, offset_bias(table).to(q.dtype)) @ v  # B, h, H*W, d


def offset_bias(table: Tensor) -> Tensor:
    """Returns the bias of each query and key, h, H*W, H*W, of a table h, 2H-1, 2W-1 of offsets."""
    height, width = grid_of(table)
    rows = torch.arange(height, device=table.device).repeat_interleave(width)  # H*W
    columns = torch.arange(width, device=table.device).repeat(height)  # H*W
    return table[
        :,
        rows[:, None] - rows + height - 1,
        columns[:, None] - columns + width - 1,
    ]


def grid_of(table: Tensor) -> tuple[int, int]:
    """Returns height and width of the grid that a table h, 2H-1, 2W-1 of offsets is for."""
    return (table.shape[1] + 1) // 2, (table.shape[2] + 1) // 2


def check_table(q: Tensor, table: Tensor) -> None:
    """Raises ValueError unless a table of offsets is for the heads and tokens of B, h, N, d."""
    height, width = grid_of(table)
    expected = (q.shape[1], 2 * height - 1, 2 * width - 1)
    if table.shape != expected or q.shape[2] != height * width:
        raise ValueError(
            f'the table of relative attention must be heads, 2H-1, 2W-1 with H * W tokens; it is '
            f'{tuple(table.shape)} for {q.shape[1]} heads and {q.shape[2]} tokens'
        )


@relative_attention.fast(traced=False)
def _(q: Tensor, k: Tensor, v: Tensor, table: Tensor, chunk_rows: int = 0) -> Tensor:
    check_table(q, table)
    return _relative_attention(q, k, v, table, chunk_rows)


CHUNK_ELEMENTS = {'cpu': 2**19, 'cuda': 2**26}
"""Map values of a chunk on each device type, if one grid row of queries has no more. On a CPU they
stay in its caches: the backward pass of 12 heads on 32 x 32 positions takes 54 ms; 72 with 2^21."""


def _chunks(batch: int, table: Tensor, chunk_rows: int) -> Iterator[tuple[slice, list[slice]]]:
    """Yields slices of grid rows that cover the grid once, each with slices of images."""
    height, width = grid_of(table)
    budget = CHUNK_ELEMENTS.get(table.device.type, CHUNK_ELEMENTS['cuda'])
    row_elements = len(table) * width * height * width
    rows = min(height, chunk_rows or max(1, budget // (row_elements * max(batch, 1))))
    images = max(1, min(batch, budget // (row_elements * rows)))
    for row in range(0, height, rows):
        yield (
            slice(row, min(row + rows, height)),
            [slice(image, image + images) for image in range(0, batch, images)],
        )


def _bias(table: Tensor, rows: slice) -> Tensor:
    """Returns the bias h, R*W, H*W of some grid rows of queries to all keys in reversed order.

    With the keys reversed, the offset of query (p, q) to key (r', s') has the table's entry
    (p + r', q + s'), which strides express.
    """
    height, width = grid_of(table)
    heads, line, step = table.stride()
    windows = table.as_strided(
        (len(table), rows.stop - rows.start, width, height, width),
        (heads, line, step, line, step),
        table.storage_offset() + rows.start * line,
    )
    return windows.reshape(len(table), -1, height * width)


def _add_bias_gradient(dtable: Tensor, grad: Tensor, rows: slice) -> None:
    """Adds the gradient to the bias of :func:`_bias`, h, R*W, H*W, to that of the table."""
    height, width = grid_of(dtable)
    grad = grad.view(len(dtable), -1, width, height, width)  # h, R, W, H, W
    if grad.device.type != 'cpu':  # few large kernels there, few copies on a CPU
        sums = _shifted_sum(grad.transpose(2, 3))  # h, R, H, 2W-1
        sums = _shifted_sum(sums.permute(0, 3, 1, 2)).mT  # h, R+H-1, 2W-1
        dtable[:, rows.start : rows.start + sums.shape[1]].add_(sums)
        return
    sums = grad.new_zeros(*grad.shape[:2], height, 2 * width - 1)
    for column, part in enumerate(grad.unbind(2)):
        sums[..., column : column + width].add_(part)
    for row, part in enumerate(sums.unbind(1), rows.start):
        dtable[:, row : row + height].add_(part)


def _shifted_sum(x: Tensor) -> Tensor:
    """Returns the sums ..., A+B-1 of all entries (a, b) of ..., A, B with the same a + b."""
    first, second = x.shape[-2:]
    # With zeros behind each row, rows that are one entry shorter begin one place further right.
    flat = F.pad(x, (0, first)).flatten(-2)[..., : first * (first + second - 1)]
    return flat.unflatten(-1, (first, first + second - 1)).sum(-2)


def _tokens(rows: slice, table: Tensor) -> slice:
    width = grid_of(table)[1]
    return slice(rows.start * width, rows.stop * width)


@own_operator('relative_attention')
def _relative_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, chunk_rows: int) -> Tensor:
    out = empty_output(q, v)
    table = table.to(q.dtype).contiguous()
    k, v = k.flip(2), v.flip(2)
    if multiplies_batches(q, k, v):
        _attend_by_batches(out, q, k, v, table, chunk_rows)
        return out
    if multiplies_heads(q, k):
        _attend_by_heads(out, q, k, v, table, chunk_rows)
        return out
    # A GPU's attention holds no maps, so that only the bias counts, which all images share.
    shared = q.device.type != 'cpu'
    with full_precision(q.device):
        for rows, images in _chunks(1 if shared else len(q), table, chunk_rows):
            bias, tokens = _bias(table, rows), _tokens(rows, table)
            for image in [slice(None)] if shared else images:
                out[image, :, tokens] = F.scaled_dot_product_attention(
                    q[image, :, tokens], k[image], v[image], attn_mask=bias[None]
                )
    return out


@_relative_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, table: Tensor, chunk_rows: int) -> Tensor:
    return empty_output(q, v)


@own_operator('relative_attention_backward')
def _relative_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, out: Tensor, chunk_rows: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wide = wide_dtype(q.dtype)
    scale = q.shape[-1] ** -0.5
    dq = torch.empty_like(q, memory_format=torch.contiguous_format)
    dk, dv = (torch.zeros_like(t, dtype=wide, memory_format=torch.contiguous_format)
              for t in (k, v))  # fmt: skip
    dtable = torch.zeros_like(table, dtype=wide, memory_format=torch.contiguous_format)
    table = table.to(q.dtype).contiguous()
    q = q * scale
    k, v = k.flip(2), v.flip(2)
    if multiplies_heads(q, k):
        _differentiate_by_heads(dq, dk, dv, dtable, grad, q, k, v, table, out, chunk_rows)
        return dq.mul_(scale), dk.flip(2), dv.flip(2), dtable
    with full_precision(q.device):
        for rows, images in _chunks(len(q), table, chunk_rows):
            bias, tokens = _bias(table, rows), _tokens(rows, table)
            dbias = torch.zeros_like(bias, dtype=wide) if len(images) != 1 else None
            for image in images:
                q_rows, grad_rows = q[image, :, tokens], grad[image, :, tokens]  # b, h, R*W, d
                scores = torch.matmul(q_rows, k[image].mT).add_(bias)  # b, h, R*W, H*W
                maps = scores.softmax(-1, dtype=wide)
                del scores
                dv[image].add_(maps.to(v.dtype).mT @ grad_rows)
                # Not less (grad_rows * out).sum(-1), as by heads: what values share, rounded with
                # them here and with the output there, would not cancel out in short types.
                dscores = torch.matmul(grad_rows, v[image].mT).to(wide)
                dscores = torch._softmax_backward_data(dscores, maps, -1, wide)
                dscores_cast = dscores.to(q.dtype)
                dq[image, :, tokens] = (dscores_cast @ k[image]) * scale
                dk[image].add_(dscores_cast.mT @ q_rows)
                summed = dscores[0] if len(dscores) == 1 else dscores.sum(0)
                dbias = summed if dbias is None else dbias.add_(summed)
            _add_bias_gradient(dtable, dbias, rows)
    return dq, dk.flip(2).to(k.dtype), dv.flip(2).to(v.dtype), dtable


# ------------------------------------------------------------------ by oneDNN


def _attend_by_batches(
    out: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, chunk_rows: int
) -> None:
    """Writes the attention of queries to keys and values in reversed order into ``out``."""
    windows, width = [*map(_Windows, table)], grid_of(table)[1]

    def write_bias(maps: Tensor, heads: slice, tokens: slice) -> None:
        rows = slice(tokens.start // width, tokens.stop // width)
        for bias, of_head in zip(windows[heads], maps, strict=True):
            of_head.view(-1, width, of_head.shape[1]).copy_(bias.of(bias.bias, rows))

    attend_by_batches(out, q, k, v, write_bias, row=width, rows=chunk_rows)


def _attend_by_heads(
    out: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, chunk_rows: int
) -> None:
    """Writes the attention of queries to keys and values in reversed order into ``out``."""
    q = q * q.shape[-1] ** -0.5
    for head, windows in enumerate(map(_Windows, table)):
        for image in range(len(q)):
            keys, values = k[image, head].contiguous(), v[image, head].mT.contiguous()
            for rows, _ in _chunks(1, table[:1], chunk_rows):
                tokens = _tokens(rows, table)
                maps = windows.maps(q[image, head, tokens], keys, rows)
                out[image, head, tokens] = onednn_product(maps, values)


def _differentiate_by_heads(
    dq: Tensor, dk: Tensor, dv: Tensor, dtable: Tensor,
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, out: Tensor, chunk_rows: int,
) -> None:  # fmt: skip
    """Writes the gradients of scaled queries, and of keys and values in reversed order."""
    for head, windows in enumerate(map(_Windows, table)):
        dbias = torch.zeros_like(windows.bias)
        for image in range(len(q)):
            keys, values = k[image, head].contiguous(), v[image, head].contiguous()
            keys_first, dkeys, dvalues = keys.mT.contiguous(), *keys.new_zeros(2, *keys.mT.shape)
            for rows, _ in _chunks(1, table[:1], chunk_rows):
                index = image, head, _tokens(rows, table)
                maps = windows.maps(q[index], keys, rows)  # R*W, H*W
                dvalues.addmm_(grad[index].mT, maps)
                dscores = onednn_product(grad[index], values)  # R*W, H*W
                dscores.sub_((grad[index] * out[index]).sum(-1, keepdim=True)).mul_(maps)
                dq[index] = onednn_product(dscores, keys_first)
                dkeys.addmm_(q[index].mT, dscores)
                windows.add_gradient(dbias, dscores, rows)
            dk[image, head], dv[image, head] = dkeys.mT, dvalues.mT
        windows.add_to_table(dtable[head], dbias)


class _Windows:
    """The bias of one head, laid out so that each query's lies in one piece.

    Of queries in column q the table's columns q to q + W - 1 count: with only these of each row, a
    query of row p sees H of the rows, one after the other, from row p on; keys are reversed.

    Args:
        table: 2H-1, 2W-1.
    """

    def __init__(self, table: Tensor):
        self.height, self.width = ((side + 1) // 2 for side in table.shape)
        self.bias = table.unfold(1, self.width, 1).transpose(0, 1).flatten(1).contiguous()
        """W, (2H-1)*W."""

    def of(self, bias: Tensor, rows: slice) -> Tensor:
        """Returns the windows R, W, H*W of grid rows of queries, a view of ``bias``."""
        tokens = self.height * self.width
        return bias.as_strided(
            (rows.stop - rows.start, self.width, tokens),
            (self.width, bias.shape[1], 1),
            bias.storage_offset() + rows.start * self.width,
        )

    def maps(self, q: Tensor, k: Tensor, rows: slice) -> Tensor:
        """Returns the softmax maps R*W, H*W of scaled queries R*W, d in some grid rows."""
        scores = onednn_product(q, k)
        scores.view(-1, self.width, len(k)).add_(self.of(self.bias, rows))
        return torch.softmax(scores, -1, out=scores)

    def add_gradient(self, dbias: Tensor, dscores: Tensor, rows: slice) -> None:
        """Adds the gradient R*W, H*W of scores to that of :attr:`bias`."""
        dscores = dscores.view(-1, self.width, dscores.shape[1])
        # row by row, as windows of different rows overlap
        for window, part in zip(self.of(dbias, rows), dscores, strict=True):
            window.add_(part)

    def add_to_table(self, dtable: Tensor, dbias: Tensor) -> None:
        """Adds the gradient of :attr:`bias` to that of the table."""
        for column, part in enumerate(dbias.view(self.width, -1, self.width)):
            dtable[:, column : column + self.width].add_(part)


@_relative_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, out: Tensor, chunk_rows: int
) -> tuple:
    dq, dk, dv = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
    wide = wide_dtype(q.dtype)
    return dq, dk, dv, torch.empty_like(table, dtype=wide, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple, output: Any) -> None:
    *tensors, ctx.chunk_rows = inputs
    ctx.save_for_backward(*tensors, output)


def _differentiate(ctx: Any, grad: Tensor) -> tuple:
    saved = ctx.saved_tensors
    *dtokens, dtable = _relative_attention_backward(grad, *saved, ctx.chunk_rows)
    return *dtokens, dtable.to(saved[3].dtype), None


_relative_attention.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.attnpool_backbones.relative_attention)
def _count(q_shape: torch.Size, *args, **kwargs) -> int:
    batch, heads, tokens, width = q_shape
    return 2 * batch * heads * tokens * tokens * 2 * width


@register_flop_formula(torch.ops.attnpool_backbones.relative_attention_backward)
def _count_backward(grad_shape: torch.Size, *args, **kwargs) -> int:
    batch, heads, tokens, width = grad_shape
    return 2 * batch * heads * tokens * tokens * 5 * width
