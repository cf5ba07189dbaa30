"""Relative attention in chunks equals the formula with the whole map."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnpool_backbones.benchmark.plain_layers import attention_maps, gathered_bias
from attnpool_backbones.layers import relative_attention as module
from attnpool_backbones.layers.relative_attention import relative_attention
from attnpool_backbones.zoo.complexity import count_macs


def plain(q, k, v, table):
    """The formula, with an index from every pair of positions into the table."""
    height, width = (table.shape[1] + 1) // 2, (table.shape[2] + 1) // 2
    return attention_maps(q, k, gathered_bias(table, height, width)) @ v


def inputs(batch, heads, height, width, dim, dtype=torch.float32):
    tokens = (torch.randn(batch, heads, height * width, dim, dtype=dtype) for _ in range(3))
    table = torch.randn(heads, 2 * height - 1, 2 * width - 1, dtype=dtype)
    return [t.requires_grad_() for t in (*tokens, table)]


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    dim=st.sampled_from([1, 4, 8]),
    chunk_rows=st.integers(0, 4),
)
def test_equals_plain_formula(batch, heads, height, width, dim, chunk_rows):
    tensors = inputs(batch, heads, height, width, dim)
    computed, expected = relative_attention(*tensors, chunk_rows), plain(*tensors)
    torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(computed, tensors, grad),
        torch.autograd.grad(expected, tensors, grad),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize('budget', [1, 200])
def test_images_in_chunks(budget, monkeypatch):
    monkeypatch.setitem(module.CHUNK_ELEMENTS, 'cpu', budget)
    test = inputs(3, 2, 4, 5, 4)
    grad = torch.randn(3, 2, 20, 4)
    computed, expected = relative_attention(*test), plain(*test)
    torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(computed, test, grad),
        torch.autograd.grad(expected, test, grad),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize('chunk_rows', [0, 1, 2])
def test_gradcheck(chunk_rows):
    tensors = inputs(2, 2, 3, 4, 3, torch.float64)
    assert torch.autograd.gradcheck(lambda *t: relative_attention(*t, chunk_rows), tensors)


def test_other_memory_layouts():
    q, k, v, table = inputs(2, 3, 4, 5, 8)
    packed = torch.stack([q, k, v], dim=3).transpose(1, 2).contiguous().transpose(1, 2)
    views = packed.unbind(3)
    bias = table.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not views[0].is_contiguous() and not bias.is_contiguous()
    torch.testing.assert_close(relative_attention(*views, bias), plain(q, k, v, table))


def test_opcheck():
    torch.library.opcheck(
        torch.ops.attnpool_backbones.relative_attention, (*inputs(1, 2, 3, 2, 4), 1)
    )


class LargestStorage(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operator made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                size = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.elements = max(self.elements, size)
        return result


def test_no_map_of_the_layer_is_made():
    heads, height, width = 4, 16, 16
    q, k, v, table = (t.detach() for t in inputs(1, heads, height, width, 4))
    row = heads * width * height * width
    with LargestStorage() as forward:
        out = module._relative_attention._init_fn(q, k, v, table, 1)
    assert row <= forward.elements <= 2 * row
    with LargestStorage() as backward:
        module._relative_attention_backward._init_fn(out, q, k, v, table, out, 1)
    assert row <= backward.elements <= 2 * row


def test_bfloat16_is_close():
    tensors = inputs(1, 2, 5, 4, 8)
    narrow = [t.detach().bfloat16().requires_grad_() for t in tensors[:3]]
    table = tensors[3]
    computed, expected = relative_attention(*narrow, table), plain(*tensors)
    assert computed.dtype == torch.bfloat16
    torch.testing.assert_close(computed.float(), expected, rtol=0.05, atol=0.05)
    (wide,) = torch.autograd.grad(expected.sum(), table)
    (grad,) = torch.autograd.grad(computed.float().sum(), table)
    assert grad.dtype == torch.float32
    torch.testing.assert_close(grad, wide, rtol=0.1, atol=0.1)


def test_products_are_counted():
    q, k, v, table = inputs(2, 3, 4, 5, 8)
    assert count_macs(lambda: relative_attention(q, k, v, table)) == 2 * 3 * 20 * 20 * 8 * 2


@pytest.mark.parametrize('shape', [(2, 5, 9), (3, 7, 9), (3, 4, 9)])
def test_wrong_table(shape):
    q, k, v, _ = inputs(1, 3, 3, 5, 4)
    with pytest.raises(ValueError, match='3 heads and 15 tokens'):
        relative_attention(q, k, v, torch.zeros(shape))
