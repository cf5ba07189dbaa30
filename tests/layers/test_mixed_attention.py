import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from attnpool_backbones.benchmark.plain_layers import attention_maps
from attnpool_backbones.layers.mixed_attention import map_covariance, mixed_attention


def plain_attention(q, k, v, matrix, offset=None, eps=None):
    mixed = torch.einsum('gh,bhij->bgij', matrix, attention_maps(q, k))
    if offset is not None:
        mixed = mixed + offset.view(-1, 1, 1)
    if eps is not None:
        mixed = mixed * (mixed.square().mean(1, keepdim=True) + eps).rsqrt()
    return mixed @ v


def plain_covariance(q, k):
    return torch.cov(attention_maps(q, k).transpose(0, 1).flatten(1), correction=0)


def inputs(batch, heads, queries, keys, width, dtype=torch.float32):
    """Returns q, k, v, matrix and offset; heads behind tokens in memory, as a projection gives."""

    def tokens(number):
        return torch.randn(batch, number, heads, width, dtype=dtype).transpose(1, 2)

    tensors = [tokens(queries), tokens(keys), tokens(keys)]
    tensors += [torch.randn(heads, heads, dtype=dtype), torch.randn(heads, dtype=dtype)]
    return [t.requires_grad_() for t in tensors]


def with_gradients(function, tensors):
    out = function(*tensors)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    gradients = torch.autograd.grad((out * weights).sum(), tensors, materialize_grads=True)
    return [out, *gradients]


sizes = dict(
    batch=st.integers(1, 3),
    heads=st.integers(1, 6),
    queries=st.integers(1, 40),
    keys=st.integers(1, 40),
    width=st.integers(1, 9),
    chunk_rows=st.integers(0, 41),
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(**sizes, has_offset=st.booleans(), eps=st.sampled_from([None, 1e-3]))
def test_chunks_equal_the_plain_formula(
    batch, heads, queries, keys, width, chunk_rows, has_offset, eps
):
    tensors = inputs(batch, heads, queries, keys, width)
    used = tensors if has_offset else tensors[:4]

    def chunked(q, k, v, matrix, offset=None):
        return mixed_attention(q, k, v, matrix, offset, eps, chunk_rows)

    def plain(q, k, v, matrix, offset=None):
        return plain_attention(q, k, v, matrix, offset, eps)

    double = [t.detach().double().requires_grad_() for t in used]
    for computed, expected in zip(
        with_gradients(chunked, used), with_gradients(plain, double), strict=True
    ):
        scale = expected.abs().max().clamp(min=1)
        torch.testing.assert_close(computed / scale, (expected / scale).float(), rtol=0, atol=1e-5)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(**sizes)
def test_covariance_equals_the_plain_formula(batch, heads, queries, keys, width, chunk_rows):
    used = inputs(batch, heads, queries, keys, width)[:2]
    double = [t.detach().double().requires_grad_() for t in used]
    for computed, expected in zip(
        with_gradients(lambda q, k: map_covariance(q, k, chunk_rows), used),
        with_gradients(plain_covariance, double),
        strict=True,
    ):
        torch.testing.assert_close(computed, expected.float().view_as(computed), rtol=0, atol=1e-5)


@pytest.mark.parametrize('score', [1e-3, -100.0, 100.0, 1e4])
def test_scores_of_any_size(score):
    q, k, v, matrix, _ = (t.detach() for t in inputs(1, 2, 6, 2000, 4))
    q, k = torch.full_like(q, score / 2), torch.ones_like(k)  # all scores of a row are alike
    expected = (matrix.sum(1).view(-1, 1, 1) * v.mean(2, keepdim=True)).expand_as(q)
    torch.testing.assert_close(mixed_attention(q, k, v, matrix), expected, rtol=1e-4, atol=1e-5)
    assert map_covariance(q, k).abs().max() < 1e-9


@pytest.mark.parametrize('eps', [None, 1e-3])
@pytest.mark.parametrize('has_offset', [False, True])
def test_gradcheck(eps, has_offset):
    tensors = inputs(2, 2, 3, 4, 2, dtype=torch.float64)[: 4 + has_offset]

    def function(q, k, v, matrix, offset=None):
        return mixed_attention(q, k, v, matrix, offset, eps, chunk_rows=2)

    assert torch.autograd.gradcheck(function, tensors)


def test_gradcheck_covariance():
    tensors = inputs(2, 2, 3, 4, 2, dtype=torch.float64)[:2]
    assert torch.autograd.gradcheck(lambda q, k: map_covariance(q, k, chunk_rows=2), tensors)


def test_many_small_images_share_a_chunk_and_give_the_same():
    tensors = inputs(5, 2, 6, 6, 3)
    torch.testing.assert_close(
        mixed_attention(*tensors), torch.cat([mixed_attention(*(t[i : i + 1] for t in tensors[:3]),
                                                              *tensors[3:]) for i in range(5)])
    )  # fmt: skip


@pytest.mark.parametrize('name', ['mixed_attention', 'mixed_attention_backward'])
def test_operator_contract(name):
    """The shapes and strides that torch.compile relies on are those the operators give."""
    q, k, v, matrix, offset = (t.detach() for t in inputs(2, 3, 5, 7, 4))
    operator = getattr(torch.ops.attnpool_backbones, name).default
    tensors = (q, k, v, matrix, offset, None, 2)
    if name == 'mixed_attention':
        torch.library.opcheck(operator, (q.clone().requires_grad_(), *tensors[1:]))
    else:
        torch.library.opcheck(operator, (torch.randn_like(q), *tensors))


@pytest.mark.parametrize('autocast', [False, True], ids=['inputs', 'autocast'])
def test_bfloat16(autocast):
    tensors = inputs(2, 4, 20, 20, 8)
    expected = plain_attention(*tensors)
    low = [t.detach().bfloat16() if i < 3 else t for i, t in enumerate(tensors)]
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        computed = mixed_attention(*(t.detach().requires_grad_() for t in low))
    assert computed.dtype == torch.bfloat16
    computed.sum().backward()
    error = (computed.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < 0.02


def test_flops_are_counted():
    q, k, v, matrix, _ = (t.detach() for t in inputs(2, 3, 5, 7, 4))
    with FlopCounterMode(display=False) as counter:
        mixed_attention(q, k, v, matrix)
    assert counter.get_total_flops() == 2 * 2 * 3 * 5 * 7 * (4 + 3 + 4)
