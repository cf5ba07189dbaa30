"""Triton kernels for the rows of softmax maps that are mixed across heads, and their covariance.

Softmax, mixing, offset and normalisation of a query row read its scores and write its mixed maps;
one after the other these steps write and read float32 maps between each two. A program takes one
query row of all heads. It walks along the keys once for maximum and sum of each softmax, and again
for what depends on them; the second walk finds the scores in the GPU's cache.

Numbers are float32 between reading and writing. Nothing is added atomically: the same inputs give
the same bits. Triton comes with PyTorch's CUDA builds for Linux, and only there.
"""

import functools
import math
import warnings

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_HEADS = 32
"""With more, the maps of a few keys are too many for the registers."""

ALIGNMENT = 16
"""Rows of scores hold a multiple of so many values: Triton then reads several at a time."""

PRECISION = 'tf32x3'
"""Of products over heads: three of tensor cores, together about float32. 'ieee' is float32."""

MAX_PROGRAMS = 2048
"""Of the backward pass; each sums the gradients to matrix and offset over its query rows."""


@functools.cache
def compiles(device: torch.device) -> bool:
    """Tells whether kernels can be compiled for a GPU and run; warns once if they cannot."""
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:  # Triton wants a C compiler at run time, which not every machine has.
        with torch.cuda.device(device):
            _write_one[(1,)](torch.empty(1, device=device))
    except Exception as error:
        warnings.warn(
            f'Attention with mixed heads runs without its fused kernels, in more memory and time, '
            f'for Triton {triton.__version__} fails here: {error}',
            stacklevel=2,
        )
        return False
    return True


def mix_rows(
    scores: Tensor, matrix: Tensor, offset: Tensor | None, eps: float | None, keys: int
) -> Tensor:
    """Overwrites scores with norm(matrix @ softmax(scores) + offset), see ``mixed_attention``.

    Args:
        scores: b, H, R, N', contiguous, N' a multiple of :data:`ALIGNMENT`, H up to
            :data:`MAX_HEADS`; float32, bfloat16 or float16.
        matrix: H, H, float32.
        offset: H, float32, or None.
        eps: Of the normalisation over heads, or None.
        keys: N: scores beyond do not count, and maps beyond mean nothing.

    Returns:
        The scores.
    """
    images, heads, rows, width = scores.shape
    scores[..., keys:] = -torch.inf
    with torch.cuda.device_of(scores):
        _mix_rows[(images * rows,)](
            scores, *_mixing(matrix, offset, eps), rows, width, **_options(heads, 2048)
        )
    return scores


def mix_rows_backward(
    scores: Tensor,
    grad: Tensor,
    mixed: Tensor,
    matrix: Tensor,
    offset: Tensor | None,
    eps: float | None,
    keys: int,
) -> tuple[Tensor, Tensor]:
    """Computes the mixed maps again and overwrites their gradient with that of the scores.

    Args:
        scores: b, H, R, N', as for :func:`mix_rows`.
        grad: b, H, R, N', contiguous: the gradient to the mixed maps, zero beyond the keys.
            Overwritten, with zeros there.
        mixed: b, H, R, N', contiguous: memory for the mixed maps.
        matrix: H, H, float32.
        offset: H, float32, or None.
        eps: Of the normalisation over heads, or None.
        keys: N.

    Returns:
        The gradients to matrix and offset, H, H and H, float32.
    """
    images, heads, rows, width = scores.shape
    scores[..., keys:] = -torch.inf
    total = images * rows
    programs = min(total, MAX_PROGRAMS)
    dmatrix = matrix.new_empty(programs, heads, heads)
    doffset = matrix.new_empty(programs, heads)
    with torch.cuda.device_of(scores):
        _mix_rows_backward[(programs,)](
            scores,
            grad,
            mixed,
            dmatrix,
            doffset,
            *_mixing(matrix, offset, eps),
            total,
            rows,
            width,
            PARTS=4,
            **_options(heads, 1024),
        )
    return dmatrix.sum(0), doffset.sum(0)


def map_products(scores: Tensor, keys: int) -> Tensor:
    """Returns the sums over rows and keys of (p_g - 1 / N) (p_h - 1 / N), p = softmax(scores).

    Args:
        scores: b, H, R, N', as for :func:`mix_rows`. What lies beyond the keys is overwritten.
        keys: N.

    Returns:
        H, H, float32.
    """
    images, heads, rows, width = scores.shape
    scores[..., keys:] = -torch.inf
    total = images * rows
    programs = min(total, MAX_PROGRAMS)
    products = scores.new_empty(programs, heads, heads, dtype=torch.float32)
    with torch.cuda.device_of(scores):
        _map_products[(programs,)](
            scores, products, total, rows, keys, width, PARTS=4, **_options(heads, 1024)
        )
    return products.sum(0)


def map_products_backward(scores: Tensor, grad: Tensor, keys: int) -> Tensor:
    """Overwrites scores with their gradient by :func:`map_products`.

    Args:
        scores: b, H, R, N', as for :func:`mix_rows`.
        grad: H, H, float32: the gradient to the sums plus its transpose.
        keys: N.

    Returns:
        The scores.
    """
    images, heads, rows, width = scores.shape
    scores[..., keys:] = -torch.inf
    with torch.cuda.device_of(scores):
        _map_products_backward[(images * rows,)](
            scores, grad.contiguous(), rows, width, PARTS=4, **_options(heads, 1024)
        )
    return scores


def _mixing(
    matrix: Tensor, offset: Tensor | None, eps: float | None
) -> tuple[Tensor, Tensor | None, float | None]:
    """Returns how kernels take the mixing; what is None, they are compiled without."""
    return matrix.contiguous(), None if offset is None else offset.contiguous(), eps


def _options(heads: int, values: int) -> dict:
    """Returns the constants of a kernel that holds at least so many values of a map at a time."""
    padded = max(16, triton.next_power_of_2(heads))  # the least that a product takes
    return dict(
        HEADS=heads,
        PADDED=padded,
        BLOCK=max(64, values // padded),
        PRECISION=PRECISION,
        LOG2_E=math.log2(math.e),
        num_warps=padded // 4,
        num_stages=1,  # the loops read ahead themselves
    )


@triton.jit
def _write_one(out):
    tl.store(out, 1.0)


@triton.jit
def _read(pointers, head, start, width, outside, HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """Returns BLOCK values of each head's row, float32; ``outside`` beyond heads and width."""
    column = start + tl.arange(0, BLOCK)[None, :]
    mask = (head < HEADS) & (column < width)
    return tl.load(pointers + column, mask=mask, other=outside).to(tl.float32)


@triton.jit
def _write(pointers, x, head, start, width, HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """Writes BLOCK values of each head's row."""
    column = start + tl.arange(0, BLOCK)[None, :]
    x = x.to(pointers.dtype.element_ty)
    tl.store(pointers + column, x, mask=(head < HEADS) & (column < width))


@triton.jit
def _maximum_and_factor(
    scores,
    head,
    width,
    HEADS: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    LOG2_E: tl.constexpr,
):
    """Returns of each head, PADDED, 1, what makes maps of scores, see :func:`_softmax`."""
    # The keys that a thread reads at once share maximum and sum until the end, for sums over
    # threads are slow. The lowest maximum is no infinity, whose difference to itself is none.
    TOGETHER: tl.constexpr = 128 // scores.dtype.element_ty.primitive_bitwidth
    largest = tl.full((PADDED, BLOCK // TOGETHER), -1e38, tl.float32)
    total = tl.zeros((PADDED, BLOCK // TOGETHER), tl.float32)
    for start in range(0, width, BLOCK):
        x = _read(scores, head, start, width, float('-inf'), HEADS, BLOCK)
        x = tl.reshape(x, (PADDED, BLOCK // TOGETHER, TOGETHER))
        before = largest
        largest = tl.maximum(before, tl.max(x, 2))
        x = tl.exp2(x * LOG2_E - largest[:, :, None] * LOG2_E)
        total = total * tl.exp2((before - largest) * LOG2_E) + tl.sum(x, 2)
    top = tl.max(largest, 1, keep_dims=True)
    total = tl.sum(total * tl.exp2((largest - top) * LOG2_E), 1, keep_dims=True)
    return top * LOG2_E, 1 / tl.where(head < HEADS, total, 1.0)


@triton.jit
def _softmax(x, top, factor, LOG2_E: tl.constexpr):
    """Returns the maps of scores x."""
    return tl.exp2(x * LOG2_E - top) * factor


@triton.jit
def _high(x):
    """Returns float32 values without the 13 digits that TF32 has no place for."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def _add_product(total, a, b, PRECISION: tl.constexpr):
    """Returns total + a @ b."""
    if PRECISION == 'tf32x3':  # Triton's own replaces NaN, too, in a fifth more instructions.
        high_a, high_b = _high(a), _high(b)
        total = tl.dot(a - high_a, high_b, total, input_precision='tf32')
        total = tl.dot(high_a, b - high_b, total, input_precision='tf32')
        return tl.dot(high_a, high_b, total, input_precision='tf32')
    else:
        return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def _mix(p, weight, shift, eps, HEADS: tl.constexpr, PRECISION: tl.constexpr):
    """Returns the mixed maps and what they were multiplied by: 1, or their inverse rms."""
    mixed = _add_product(tl.zeros(p.shape, tl.float32), weight, p, PRECISION) + shift
    inverse = 1.0
    if eps is not None:
        inverse = tl.rsqrt(tl.sum(mixed * mixed, 0, keep_dims=True) / HEADS + eps)
        mixed = mixed * inverse
    return mixed, inverse


@triton.jit
def _read_mixing(matrix, offset, HEADS: tl.constexpr, PADDED: tl.constexpr):
    """Returns the matrix, PADDED, PADDED, and the offset, PADDED, 1, with zeros beyond heads."""
    row = tl.arange(0, PADDED)[:, None]
    column = tl.arange(0, PADDED)[None, :]
    weight = tl.load(
        matrix + row * HEADS + column, mask=(row < HEADS) & (column < HEADS), other=0.0
    )
    shift = tl.zeros((PADDED, 1), tl.float32)
    if offset is not None:
        shift = tl.load(offset + row, mask=row < HEADS, other=0.0)
    return weight, shift


@triton.jit
def _first_values(index, head, rows, width, HEADS: tl.constexpr):
    """Returns where the rows of all heads begin, PADDED, 1, for the index of image and row."""
    head = head.to(tl.int64)  # as is all that follows: there may be more than 2^31 values
    return ((index // rows * HEADS + head) * rows + index % rows) * width


@triton.jit(do_not_specialize=['rows'])
def _mix_rows(
    scores,
    matrix,
    offset,
    eps,
    rows,
    width,
    HEADS: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
    LOG2_E: tl.constexpr,
):
    head = tl.arange(0, PADDED)[:, None]
    weight, shift = _read_mixing(matrix, offset, HEADS, PADDED)
    scores += _first_values(tl.program_id(0), head, rows, width, HEADS)
    top, factor = _maximum_and_factor(scores, head, width, HEADS, PADDED, BLOCK, LOG2_E)
    # What a loop carries, Triton lays out for float32 products; what it has just read, for the
    # scores' type, which takes a third more instructions.
    x = _read(scores, head, 0, width, float('-inf'), HEADS, BLOCK)
    for start in range(0, width, BLOCK):
        p = _softmax(x, top, factor, LOG2_E)
        x = _read(scores, head, start + BLOCK, width, float('-inf'), HEADS, BLOCK)
        mixed, _ = _mix(p, weight, shift, eps, HEADS, PRECISION)
        _write(scores, mixed, head, start, width, HEADS, BLOCK)


@triton.jit
def _unnormalised(grad, mixed, inverse, eps, HEADS: tl.constexpr):
    """Returns the gradient to mixed maps before the normalisation of :func:`_mix`."""
    if eps is not None:
        grad = (grad - mixed * (tl.sum(grad * mixed, 0, keep_dims=True) / HEADS)) * inverse
    return grad


@triton.jit
def _add_products(
    total,
    a,
    b,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Adds the products a @ b^T of parts of the keys to their totals, PARTS, PADDED, PADDED."""
    # So few heads in a long inner sum would have all warps do the same.
    a = tl.permute(tl.reshape(a, (PADDED, PARTS, BLOCK // PARTS)), (1, 0, 2))
    b = tl.permute(tl.reshape(b, (PADDED, PARTS, BLOCK // PARTS)), (1, 2, 0))
    return _add_product(total, a, b, PRECISION)


@triton.jit(do_not_specialize=['rows', 'count'])
def _mix_rows_backward(
    scores,
    grad,
    mixed_maps,
    dmatrix,
    doffset,
    matrix,
    offset,
    eps,
    count,
    rows,
    width,
    HEADS: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
    LOG2_E: tl.constexpr,
):
    head = tl.arange(0, PADDED)[:, None]
    other = tl.arange(0, PADDED)[None, :]
    weight, shift = _read_mixing(matrix, offset, HEADS, PADDED)
    weight_sum = tl.zeros((PADDED, PADDED), tl.float32)
    shift_sum = tl.zeros((PADDED, 1), tl.float32)
    for index in range(tl.program_id(0), count, tl.num_programs(0)):
        first = _first_values(index, head, rows, width, HEADS)
        s, g, m = scores + first, grad + first, mixed_maps + first
        top, factor = _maximum_and_factor(s, head, width, HEADS, PADDED, BLOCK, LOG2_E)
        dweight = tl.zeros((PARTS, PADDED, PADDED), tl.float32)
        x = _read(s, head, 0, width, float('-inf'), HEADS, BLOCK)
        dnext = _read(g, head, 0, width, 0.0, HEADS, BLOCK)
        for start in range(0, width, BLOCK):
            p = _softmax(x, top, factor, LOG2_E)
            dmixed = dnext
            x = _read(s, head, start + BLOCK, width, float('-inf'), HEADS, BLOCK)
            dnext = _read(g, head, start + BLOCK, width, 0.0, HEADS, BLOCK)
            mixed, inverse = _mix(p, weight, shift, eps, HEADS, PRECISION)
            _write(m, mixed, head, start, width, HEADS, BLOCK)
            dmixed = _unnormalised(dmixed, mixed, inverse, eps, HEADS)
            dweight = _add_products(dweight, dmixed, p, PADDED, BLOCK, PARTS, PRECISION)
            if offset is not None:
                shift_sum += tl.sum(dmixed, 1, keep_dims=True)
        dweight = tl.sum(dweight, 0)
        weight_sum += dweight
        # Softmax subtracts the sums over keys of p * dp, and dp = matrix^T dmixed.
        expected = tl.trans(tl.sum(weight * dweight, 0, keep_dims=True))
        x = _read(s, head, 0, width, float('-inf'), HEADS, BLOCK)
        dnext = _read(g, head, 0, width, 0.0, HEADS, BLOCK)
        for start in range(0, width, BLOCK):
            p = _softmax(x, top, factor, LOG2_E)
            dmixed = dnext
            x = _read(s, head, start + BLOCK, width, float('-inf'), HEADS, BLOCK)
            dnext = _read(g, head, start + BLOCK, width, 0.0, HEADS, BLOCK)
            if eps is not None:
                mixed, inverse = _mix(p, weight, shift, eps, HEADS, PRECISION)
                dmixed = _unnormalised(dmixed, mixed, inverse, eps, HEADS)
            dp = _add_product(tl.zeros(p.shape, tl.float32), tl.trans(weight), dmixed, PRECISION)
            _write(g, p * (dp - expected), head, start, width, HEADS, BLOCK)
    program = tl.program_id(0).to(tl.int64)
    place = dmatrix + program * (HEADS * HEADS) + head * HEADS + other
    tl.store(place, weight_sum, mask=(head < HEADS) & (other < HEADS))
    tl.store(doffset + program * HEADS + head, shift_sum, mask=head < HEADS)


@triton.jit(do_not_specialize=['rows', 'keys', 'count'])
def _map_products(
    scores,
    products,
    count,
    rows,
    keys,
    width,
    HEADS: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
    LOG2_E: tl.constexpr,
):
    head = tl.arange(0, PADDED)[:, None]
    other = tl.arange(0, PADDED)[None, :]
    mean = 1.0 / keys
    total = tl.zeros((PADDED, PADDED), tl.float32)
    for index in range(tl.program_id(0), count, tl.num_programs(0)):
        s = scores + _first_values(index, head, rows, width, HEADS)
        top, factor = _maximum_and_factor(s, head, width, HEADS, PADDED, BLOCK, LOG2_E)
        products_of_row = tl.zeros((PARTS, PADDED, PADDED), tl.float32)
        x = _read(s, head, 0, width, float('-inf'), HEADS, BLOCK)
        for start in range(0, width, BLOCK):
            inside = start + tl.arange(0, BLOCK)[None, :] < keys
            p = tl.where(inside, _softmax(x, top, factor, LOG2_E) - mean, 0.0)
            x = _read(s, head, start + BLOCK, width, float('-inf'), HEADS, BLOCK)
            products_of_row = _add_products(products_of_row, p, p, PADDED, BLOCK, PARTS, PRECISION)
        total += tl.sum(products_of_row, 0)
    place = products + tl.program_id(0).to(tl.int64) * (HEADS * HEADS) + head * HEADS + other
    tl.store(place, total, mask=(head < HEADS) & (other < HEADS))


@triton.jit(do_not_specialize=['rows'])
def _map_products_backward(
    scores,
    matrix,
    rows,
    width,
    HEADS: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
    LOG2_E: tl.constexpr,
):
    head = tl.arange(0, PADDED)[:, None]
    weight, _ = _read_mixing(matrix, None, HEADS, PADDED)
    s = scores + _first_values(tl.program_id(0), head, rows, width, HEADS)
    top, factor = _maximum_and_factor(s, head, width, HEADS, PADDED, BLOCK, LOG2_E)
    products = tl.zeros((PARTS, PADDED, PADDED), tl.float32)
    x = _read(s, head, 0, width, float('-inf'), HEADS, BLOCK)
    for start in range(0, width, BLOCK):
        p = _softmax(x, top, factor, LOG2_E)
        x = _read(s, head, start + BLOCK, width, float('-inf'), HEADS, BLOCK)
        products = _add_products(products, p, p, PADDED, BLOCK, PARTS, PRECISION)
    # The means need no subtraction: the softmax passes no gradient that a row shares.
    expected = tl.sum(weight * tl.sum(products, 0), 1, keep_dims=True)
    x = _read(s, head, 0, width, float('-inf'), HEADS, BLOCK)
    for start in range(0, width, BLOCK):
        p = _softmax(x, top, factor, LOG2_E)
        x = _read(s, head, start + BLOCK, width, float('-inf'), HEADS, BLOCK)
        dp = _add_product(tl.zeros(p.shape, tl.float32), weight, p, PRECISION)
        _write(s, p * (dp - expected), head, start, width, HEADS, BLOCK)
