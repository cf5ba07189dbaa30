"""``formulas()`` gives the plain form of any model: it computes what the fast forms compute."""

import copy

import pytest
import torch
from torch.autograd import forward_ad

from attnpool_backbones import ops
from attnpool_backbones.registry import MODELS
from tests.backbones.families import VARIANTS

SMALL = [variant for variant in VARIANTS if not variant.slow]
POOLED = [
    dict(type='PatchConvNet', arch='nano', pooling=True),
    dict(type='PatchConvNet', arch=dict(width=32, depth=2, num_class_tokens=5), pooling=True),
]


def build(config):
    """Builds a model in float64 whose scales and shifts are all of the size of 1."""
    torch.manual_seed(0)
    model = MODELS.build(dict(config)).double()
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or name.endswith(('sge.weight', 'sge.bias')):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def step(model, x, **options):
    """Returns outputs, gradients and buffers of one training step."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    with ops.formulas(**options):
        outputs = model(x)
    torch.autograd.backward(outputs, [torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
                                      for y in outputs])  # fmt: skip
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return outputs, x.grad, gradients, dict(model.named_buffers())


def assert_equal(computed, expected):
    torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    'norm_eval',
    [True, pytest.param(False, marks=pytest.mark.slow)],
    ids=['fixed norms', 'live norms'],
)
@pytest.mark.parametrize('variant', SMALL, ids=lambda variant: variant.name)
def test_plain_form(variant, norm_eval):
    options = dict(norm_eval=norm_eval, drop_path_rate=0.3, with_cp=norm_eval)
    model = build(dict(variant.config, **options)).train()
    plain = copy.deepcopy(model)
    x = torch.randn(2, 3, 40, 33, dtype=torch.float64)
    # With activation checkpointing, whose second pass runs outside of formulas().
    assert_equal(step(model, x, wanted=False), step(plain, x))
    with torch.no_grad():
        computed = model.eval()(x)
        with ops.formulas():
            assert_equal(computed, plain.eval()(x))


NANO = [variant for variant in SMALL if variant.name.endswith('-nano')]


@pytest.mark.parametrize('variant', NANO, ids=lambda variant: variant.name)
def test_other_ways_to_derivatives(variant):
    model = build(dict(variant.config, norm_eval=True)).train()
    parameters = dict(model.named_parameters())
    x, direction = torch.randn(2, 1, 3, 40, 33, dtype=torch.float64)

    def total(parameters, x):
        outputs = torch.func.functional_call(model, parameters, (x,))
        return sum(y.square().mean() for y in outputs)

    given = x.clone().requires_grad_()
    loss = total(parameters, given)
    *expected, slope = torch.autograd.grad(loss, [*parameters.values(), given], allow_unused=True)
    slope = (slope * direction).sum()
    detached = {name: p.detach() for name, p in parameters.items()}
    for values in (detached, parameters):
        gradients = torch.func.grad(total)(values, x)
        for found, gradient in zip(gradients.values(), expected, strict=True):
            assert_equal(found, torch.zeros_like(found) if gradient is None else gradient)
    found = torch.func.jvp(lambda x: total(detached, x), (x,), (direction,))
    assert_equal(found, (loss, slope))
    per_image = torch.func.vmap(torch.func.grad(total), (None, 0))(detached, x[:, None])
    assert_equal({name: g[0] for name, g in per_image.items()}, gradients)
    with torch.no_grad(), forward_ad.dual_level():
        dual = total(detached, forward_ad.make_dual(x, direction))
        assert_equal(forward_ad.unpack_dual(dual), (loss, slope))
        narrow = {name: p.float() for name, p in detached.items()}
        model.float()  # the type that oneDNN takes
        dual = total(narrow, forward_ad.make_dual(x.float(), direction.float()))
        found = tuple(t.double() for t in forward_ad.unpack_dual(dual))
        torch.testing.assert_close(found, (loss, slope), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('config', POOLED, ids=['one token', 'token per class'])
def test_plain_form_of_pooling(config):
    model = build(config)
    x = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    for maps in (False, True):
        computed = model.forward_pooled(x, maps)
        with ops.formulas():
            assert_equal(computed, model.forward_pooled(x, maps))


def test_live_map_statistics_at_inference():
    model = build(dict(type='DeepViT', arch='nano', stats_tokens='live')).eval()
    x = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    with torch.no_grad():
        computed = model(x)
        with ops.formulas():
            assert_equal(computed, model(x))
