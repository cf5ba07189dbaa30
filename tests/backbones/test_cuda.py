"""Backbones compute on a GPU what they compute on a CPU, and train there in short types."""

import copy

import pytest
import torch

from tests.backbones.families import FAMILIES
from tests.backbones.test_contract import (
    assert_compiled_trains_as_eager,
    build_damped,
    every_variant,
    images,
    loss_of,
    train_once,
)

if not torch.cuda.is_available():
    pytest.skip('needs a GPU', allow_module_level=True)

DEVICE = 'cuda'


@every_variant
def test_outputs_and_gradients_are_those_of_a_cpu(variant):
    model, x = build_damped(variant).double(), images(64, 96).double()
    moved = copy.deepcopy(model).to(DEVICE)
    expected, computed = model(x), moved(x.to(DEVICE))
    torch.testing.assert_close([y.cpu() for y in computed], list(expected))
    assert all(y.is_contiguous() for y in computed)
    loss_of(expected).backward()
    loss_of(computed).backward()
    largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    for (name, a), b in zip(model.named_parameters(), moved.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            # Some are 0 but for rounding: the bias before a norm, say. Of others 2e-8 was seen.
            torch.testing.assert_close(b.grad.cpu(), a.grad, rtol=1e-5, atol=1e-7 * largest)


each_family = pytest.mark.parametrize('variant', FAMILIES.values(), ids=FAMILIES)
each_type = pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)


@each_type
@each_family
def test_trains_in_short_types(variant, dtype):
    model, x = build_damped(variant).to(DEVICE), images(64, 96).to(DEVICE)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast(DEVICE, dtype):
            computed = model(x)
    for y, right in zip(computed, exact, strict=True):
        assert (y - right).abs().max() <= 0.05 * right.abs().max()
    with torch.autocast(DEVICE, dtype):
        outputs, gradients = train_once(model, x)
    assert all(y.isfinite().all() for y in outputs)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert [n for n in trained if gradients[n] is None or not gradients[n].isfinite().all()] == []


@each_family
def test_compiled_is_the_same(variant):
    assert_compiled_trains_as_eager(build_damped(variant).to(DEVICE), images(64, 96).to(DEVICE))
