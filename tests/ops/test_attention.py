"""What the operator contract does not say of attention."""

import pytest
import torch

from attnpool_backbones.ops import attention as module
from attnpool_backbones.ops import product
from attnpool_backbones.ops.attention import attention
from attnpool_backbones.ops.product import choose_convolution


@pytest.fixture
def heads(monkeypatch):
    """Notes calls that go head by head, as on processors where oneDNN is the faster library."""
    calls = []
    function = module._attend_by_heads
    monkeypatch.setattr(module, '_attend_by_heads', lambda *a: calls.append(a) or function(*a))
    monkeypatch.setattr(product, 'SMALLEST_MAP', 1)
    choose_convolution(True)
    yield calls
    choose_convolution(None)


def inputs(batch=2, heads=3, queries=20, keys=20, dim=8, dtype=torch.float32):
    sizes = (queries, keys, keys)
    return [torch.randn(batch, n, heads, dim, dtype=dtype).transpose(1, 2) for n in sizes]


@pytest.mark.parametrize('budget', [1, 130, 2**20])
@pytest.mark.parametrize('sizes', [{}, dict(queries=7, keys=33), dict(batch=1, heads=1, dim=3)])
def test_head_by_head(sizes, budget, heads, monkeypatch):
    monkeypatch.setattr(module, 'CHUNK_ELEMENTS', budget)
    given = inputs(**sizes)
    with torch.no_grad():
        computed = attention(*given)
    assert len(heads) == 1
    torch.testing.assert_close(computed, attention.formula(*given), rtol=1e-5, atol=1e-5)
    # heads next to the channels in memory, for the projection that follows
    assert computed.transpose(1, 2).is_contiguous()


def test_others_stay_with_torch(heads, monkeypatch):
    given = inputs()
    attention(*(t.clone().requires_grad_() for t in given))
    attention(*(t.double() for t in given))
    with torch.autocast('cpu', torch.bfloat16):
        attention(*given)
    torch.compile(attention, backend='eager', fullgraph=True)(*given)
    monkeypatch.setattr(product, 'SMALLEST_MAP', 20 * 20 + 1)
    attention(*given)
    choose_convolution(False)
    attention(*given)
    assert not heads
