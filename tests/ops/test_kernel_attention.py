"""Depthwise convolution as a special case of relative attention (arXiv 2106.04803, section 2.1)."""

import pytest
import torch
from torch.nn import functional as F

from attnpool_backbones.ops.kernel_attention import kernel_attention
from attnpool_backbones.ops.relative_attention import relative_attention

HEADS, HEIGHT, WIDTH, DIM = 3, 7, 5, 4


def tokens():
    return [torch.randn(2, HEADS, HEIGHT * WIDTH, DIM, dtype=torch.float64) for _ in range(3)]


def table_of(kernel, outside):
    """Returns the table of offsets of a kernel h, 3, 3, as a convolution reads it."""
    table = torch.full((HEADS, 2 * HEIGHT - 1, 2 * WIDTH - 1), outside, dtype=kernel.dtype)
    # a convolution's kernel is indexed by key - query, the table by query - key
    table[:, HEIGHT - 2 : HEIGHT + 1, WIDTH - 2 : WIDTH + 1] = kernel.flip(1, 2)
    return table


def depthwise(v, kernel):
    maps = v.transpose(2, 3).flatten(1, 2).unflatten(2, (HEIGHT, WIDTH))  # B, h*d, H, W
    weight = kernel.repeat_interleave(DIM, 0)[:, None]
    y = F.conv2d(maps, weight, padding=1, groups=HEADS * DIM)
    return y.flatten(2).unflatten(1, (HEADS, DIM)).transpose(2, 3)


@pytest.mark.parametrize('form', ['formula', 'fast'])
def test_a_kernel_after_the_softmax_is_a_convolution_beside_attention(form):
    q, k, v = tokens()
    kernel = torch.randn(HEADS, 3, 3, dtype=torch.float64)
    operator = kernel_attention.formula if form == 'formula' else kernel_attention
    beside = operator(q, k, v, table_of(kernel, 0.0)) - (q @ k.mT / DIM**0.5).softmax(-1) @ v
    torch.testing.assert_close(beside, depthwise(v, kernel))


def test_before_the_softmax_a_convolution_is_the_limit_of_weak_queries():
    """With log(kernel) as bias, attention tends to a convolution with a normalised kernel."""
    q, k, v = tokens()
    kernel = torch.rand(HEADS, 3, 3, dtype=torch.float64) + 0.1
    table = table_of(kernel.log(), -torch.inf)
    limit = depthwise(v, kernel) / depthwise(torch.ones_like(v), kernel)
    distances = [
        float((relative_attention(strength * q, k, v, table) - limit).abs().max())
        for strength in (1, 1e-1, 1e-2, 1e-3, 0)
    ]
    assert distances[0] > 0.1 and distances[-1] < 1e-12
    # the adaptive part vanishes linearly
    for weak, weaker in zip(distances[1:-1], distances[2:-1], strict=False):
        assert weaker == pytest.approx(weak / 10, rel=0.2)


def test_strong_queries_are_no_convolution():
    q, k, v = tokens()
    table = table_of(torch.ones(HEADS, 3, 3, dtype=torch.float64), -torch.inf)
    moved = relative_attention(q, k, v, table) - relative_attention(q.roll(1, 2), k, v, table)
    assert moved.abs().max() > 0.1


def test_memory_is_linear_in_the_tokens():
    """The largest tensor of the convolution beside attention is a padded spectrum."""
    from attnpool_backbones.ops import kernel_attention as module

    sizes = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            y = func(*args, **(kwargs or {}))
            sizes.append(y.numel() if isinstance(y, torch.Tensor) else 0)
            return y

    v, table = torch.randn(1, 2, 40 * 30, 8), torch.randn(2, 79, 59)
    with Largest():
        module._convolved(v, table)
    assert max(sizes) <= 4 * v.numel()


def test_wrong_table():
    q, k, v = tokens()
    with pytest.raises(ValueError, match='3 heads and 35 tokens'):
        kernel_attention(q, k, v, torch.zeros(2, 13, 9))
