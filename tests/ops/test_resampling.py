"""Resampling by products, as it is where results have to be the same in every run."""

import pytest
import torch

from attnpool_backbones.ops.resampling import averaged, bicubic, by_products


@pytest.mark.parametrize('resample', [bicubic, averaged])
@pytest.mark.parametrize('size', [(14, 14), (9, 17), (3, 5), (1, 20)], ids=str)
def test_products_equal_the_resampling(resample, size):
    x = torch.randn(2, 3, 7, 11, dtype=torch.float64, requires_grad=True)
    y, expected = by_products(x, size, resample), resample(x, size)
    torch.testing.assert_close(y, expected)
    weights = torch.randn_like(y)
    gradients = (torch.autograd.grad((t * weights).sum(), x)[0] for t in (y, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('resample', [bicubic, averaged])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_autocast_rounds_no_products(resample, dtype):
    x = torch.randn(1, 8, 14, 14).to(dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = by_products(x, (32, 20), resample)
    assert y.dtype == dtype
    torch.testing.assert_close(y, resample(x.float(), (32, 20)).to(dtype), atol=1e-6, rtol=1e-2)
