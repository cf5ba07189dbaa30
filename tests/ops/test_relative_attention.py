"""What the operator contract does not say of relative attention."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnpool_backbones.ops import product
from attnpool_backbones.ops import relative_attention as module
from attnpool_backbones.ops.product import choose_convolution
from attnpool_backbones.ops.relative_attention import relative_attention
from attnpool_backbones.zoo.complexity import count_macs


def inputs(batch, heads, height, width, dim, dtype=torch.float32):
    tokens = (torch.randn(batch, heads, height * width, dim, dtype=dtype) for _ in range(3))
    table = torch.randn(heads, 2 * height - 1, 2 * width - 1, dtype=dtype)
    return [t.requires_grad_() for t in (*tokens, table)]


@pytest.mark.parametrize('budget', [1, 200])
def test_images_in_chunks(budget, monkeypatch):
    monkeypatch.setitem(module.CHUNK_ELEMENTS, 'cpu', budget)
    test = inputs(3, 2, 4, 5, 4)
    grad = torch.randn(3, 2, 20, 4)
    computed, expected = relative_attention(*test), relative_attention.formula(*test)
    torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(computed, test, grad),
        torch.autograd.grad(expected, test, grad),
        rtol=1e-4,
        atol=1e-5,
    )


def test_what_values_share_costs_short_gradients_no_digits():
    rounded = [t.detach().bfloat16() for t in inputs(2, 3, 7, 8, 16)]
    q, k, v, table = rounded
    rounded = q, k + 2, v + 4, table
    grad = torch.randn_like(q)

    def gradients(function, dtype):
        leaves = [t.to(dtype).requires_grad_() for t in rounded]
        return torch.autograd.grad(function(*leaves), leaves, grad.to(dtype))

    exact = gradients(relative_attention.formula, torch.float64)
    errors = [
        [float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]
        for found in (
            gradients(relative_attention, torch.bfloat16),
            gradients(relative_attention.formula, torch.bfloat16),
        )
    ]
    for error, allowed in zip(*errors, strict=True):
        assert error < 1.5 * allowed, errors


@pytest.fixture
def by_heads(monkeypatch):
    """Products of each head are oneDNN's, as on processors where that is the faster library."""
    monkeypatch.setattr(product, 'SMALLEST_MAP', 1)
    choose_convolution(True)
    yield
    choose_convolution(None)


@pytest.mark.parametrize('budget', [1, 200, 2**19])
@pytest.mark.parametrize(
    'shape', [(3, 2, 4, 5, 4), (1, 3, 1, 7, 8), (2, 2, 6, 1, 4), (1, 1, 9, 8, 3)]
)
def test_head_by_head(shape, budget, by_heads, monkeypatch):
    called = []
    monkeypatch.setitem(module.CHUNK_ELEMENTS, 'cpu', budget)
    for name in ('_attend_by_heads', '_differentiate_by_heads'):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, f=function: called.append(f) or f(*a))
    test = inputs(*shape)
    computed, expected = relative_attention(*test), relative_attention.formula(*test)
    torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(computed, test, grad),
        torch.autograd.grad(expected, test, grad),
        rtol=1e-4,
        atol=1e-5,
    )
    assert len(called) == 2


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


@pytest.mark.parametrize('at_once', [4, 1])
def test_no_map_of_the_layer_is_made(at_once, request):
    heads, height, width = 4, 16, 16
    if at_once == 1:
        request.getfixturevalue('by_heads')
    q, k, v, table = (t.detach() for t in inputs(1, heads, height, width, 4))
    row = at_once * width * height * width
    with LargestStorage() as forward:
        out = module._relative_attention._init_fn(q, k, v, table, 1)
    assert row <= forward.elements <= 2 * row
    with LargestStorage() as backward:
        module._relative_attention_backward._init_fn(out, q, k, v, table, out, 1)
    assert row <= backward.elements <= 2 * row


def test_products_are_counted():
    q, k, v, table = inputs(2, 3, 4, 5, 8)
    assert count_macs(lambda: relative_attention(q, k, v, table)) == 2 * 3 * 20 * 20 * 8 * 2


@pytest.mark.parametrize('shape', [(2, 5, 9), (3, 7, 9), (3, 4, 9)])
def test_wrong_table(shape):
    q, k, v, _ = inputs(1, 3, 3, 5, 4)
    with pytest.raises(ValueError, match='3 heads and 15 tokens'):
        relative_attention(q, k, v, torch.zeros(shape))
