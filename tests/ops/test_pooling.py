"""What the operator contract does not say of pooling: windows of all sizes, and few positions."""

import pytest
import torch

from attnpool_backbones.ops.pooling import pool_minus_identity


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('size', [1, 3, 5, 7])
@pytest.mark.parametrize('height, width', [(9, 6), (4, 3), (2, 5), (1, 1)])
def test_gradients(height, width, size, memory_format):
    x = torch.randn(2, 4, height, width, dtype=torch.float64)
    x = x.to(memory_format=memory_format).requires_grad_()
    grad = torch.randn_like(x)
    kept = grad.clone()
    computed, expected = (
        torch.autograd.grad(pool(x, size), x, grad)
        for pool in (pool_minus_identity, pool_minus_identity.formula)
    )
    torch.testing.assert_close(computed, expected)
    assert torch.equal(grad, kept)
    assert torch.autograd.gradgradcheck(lambda x: pool_minus_identity(x, size).square(), x)
