"""bfloat16 attention by batches of products: as exact as the formula, and where it runs."""

import pytest
import torch

from attnpool_backbones.ops import attention as attention_module
from attnpool_backbones.ops import bfloat16_attention as module
from attnpool_backbones.ops import mixed_attention as mixed_module
from attnpool_backbones.ops import relative_attention as relative_module
from attnpool_backbones.ops.attention import attention
from attnpool_backbones.ops.bfloat16_attention import batches_lead, choose_batches
from attnpool_backbones.ops.mixed_attention import mixed_attention
from attnpool_backbones.ops.relative_attention import relative_attention

needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason='this processor has no bfloat16 instructions',
)


@pytest.fixture
def called(monkeypatch):
    """Notes calls that go by batches, here also of few tokens and whatever is faster."""
    calls = []
    function = module.attend_by_batches
    for user in (attention_module, relative_module):
        monkeypatch.setattr(
            user, 'attend_by_batches', lambda *a, **k: calls.append(a) or function(*a, **k)
        )
    monkeypatch.setattr(module, 'SMALLEST_MAP', 1)
    choose_batches(True)
    yield calls
    choose_batches(None)


def inputs(batch=2, heads=3, queries=20, keys=20, dim=8, dtype=torch.bfloat16):
    sizes = (queries, keys, keys)
    return [torch.randn(batch, n, heads, dim).to(dtype).transpose(1, 2) for n in sizes]


def assert_exact_as(formula, computed, given):
    exact = formula(*(t.double() for t in given))
    error, allowed = ((y - exact).abs().max() for y in (computed, formula(*given)))
    # The largest of a few hundred roundings is not the same number for both.
    assert error <= 1.5 * allowed
    assert computed.dtype == torch.bfloat16


@needs_bfloat16
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('budget', [1, 130, 900, 2**21])
@pytest.mark.parametrize('sizes', [{}, dict(queries=7, keys=33), dict(batch=1, heads=1, dim=3)])
def test_attention(sizes, budget, autocast, called, monkeypatch):
    monkeypatch.setattr(module, 'CHUNK_ELEMENTS', budget)
    given = inputs(**sizes)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        computed = attention(*given)
    assert len(called) == 1
    assert_exact_as(attention.formula, computed, given)
    assert computed.transpose(1, 2).is_contiguous()


@needs_bfloat16
@pytest.mark.parametrize('chunk_rows', [0, 1, 3])
@pytest.mark.parametrize('budget', [1, 200, 2**21])
@pytest.mark.parametrize(
    'shape', [(3, 2, 4, 5, 4), (1, 3, 1, 7, 8), (2, 2, 6, 1, 4), (1, 1, 9, 8, 3)]
)
def test_relative_attention(shape, budget, chunk_rows, called, monkeypatch):
    monkeypatch.setattr(module, 'CHUNK_ELEMENTS', budget)
    batch, heads, height, width, dim = shape
    table = torch.randn(heads, 2 * height - 1, 2 * width - 1).bfloat16()
    given = [*inputs(batch, heads, height * width, height * width, dim), table]
    assert_exact_as(
        relative_attention.formula, relative_attention(*given, chunk_rows=chunk_rows), given
    )
    assert len(called) == 1


@needs_bfloat16
@pytest.mark.parametrize('chunk_rows', [0, 3])
@pytest.mark.parametrize('budget', [1, 600, 10**4, 2**21])
@pytest.mark.parametrize(
    'sizes', [{}, dict(queries=70, keys=33), dict(batch=1, heads=1, dim=3), dict(heads=12)]
)
def test_mixed_attention(sizes, budget, chunk_rows, called, monkeypatch):
    monkeypatch.setattr(mixed_module, 'CHUNK_OF_BFLOAT16', budget)
    ran = []
    function = mixed_module._attend_in_bfloat16
    monkeypatch.setattr(
        mixed_module, '_attend_in_bfloat16', lambda *a: ran.append(a) or function(*a)
    )
    q, k, v = inputs(**sizes)
    heads = q.shape[1]
    v = v + torch.randn(heads, 1, 1).bfloat16()  # what all values have in common is the larger part
    given = [q, k, v, torch.randn(heads, heads)]

    def formula(*args):
        with torch.autocast('cpu', torch.bfloat16):
            return mixed_attention.formula(*args)

    computed = mixed_attention(*given, chunk_rows=chunk_rows)
    assert_exact_as(formula, computed, given)
    assert computed.transpose(1, 2).is_contiguous() and len(ran) == 1
    mixed_attention(*given, offset=torch.zeros(heads))
    mixed_attention(*given, eps=1.0)
    assert len(ran) == 1


@needs_bfloat16
@pytest.mark.parametrize('chunk_rows, elements', [(0, 1 << 10), (1, 1 << 10), (4, 1 << 11)])
def test_no_more_is_held_than_asked_for(chunk_rows, elements, called, monkeypatch):
    """Of 3 heads of 8 x 8 positions."""
    made = []
    monkeypatch.setattr(module, 'CHUNK_ELEMENTS', 1 << 10)
    empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, 'new_empty', lambda *a: made.append(a[-1]) or empty(*a))
    relative_attention(*inputs(1, 3, 64, 64), torch.randn(3, 15, 15).bfloat16(), chunk_rows)
    sizes = [size for size in made if isinstance(size, int)]
    assert max(sizes) == elements and len(called) == 1


@needs_bfloat16
def test_others_stay_with_torch(called, monkeypatch):
    given = inputs()
    attention(*(t.clone().requires_grad_() for t in given))
    for dtype in (torch.float32, torch.float16):
        attention(*(t.to(dtype) for t in given))
    torch.compile(attention, backend='eager', fullgraph=True)(*given)
    with torch.backends.mkldnn.flags(enabled=False):
        attention(*given)
    monkeypatch.setattr(module, 'SMALLEST_MAP', 20 * 20 + 1)
    attention(*given)
    monkeypatch.setattr(module, 'SMALLEST_MAP', 1)
    choose_batches(False)
    attention(*given)
    assert not called


def test_processors_without_bfloat16_are_not_measured(called, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: False)
    monkeypatch.setattr(module, 'lead', lambda *_: pytest.fail('it measured'))
    choose_batches(None)
    assert not module.multiplies_batches(*inputs())


@needs_bfloat16
def test_the_measurement_is_told(monkeypatch):
    assert batches_lead(rounds=1) > 0
    assert '2.00 times' in module._tell(True, 2.0)
    assert 'fused' in module._tell(False, 1.0).split(':')[0]
