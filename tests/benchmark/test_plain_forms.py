"""The plain forms compute what the layers compute, so a ratio of their times compares like with
like."""

import pytest
import torch

from attnpool_backbones.benchmark.plain_forms import PLAIN_FORMS, plain_form
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


def step(model, x):
    """Returns outputs, gradients and buffers of one training step."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    outputs = model(x)
    torch.autograd.backward(outputs, [torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
                                      for y in outputs])  # fmt: skip
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return outputs, x.grad, gradients, dict(model.named_buffers())


def assert_equal(computed, expected):
    torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-5)


def test_there_are_variants_of_every_family():
    assert {variant.config['type'] for variant in SMALL} == {
        'AttnResNet', 'CoAtNet', 'DeepViT', 'MetaFormer', 'PatchConvNet',
    }  # fmt: skip


@pytest.mark.parametrize(
    'norm_eval',
    [True, pytest.param(False, marks=pytest.mark.slow)],
    ids=['fixed norms', 'live norms'],
)
@pytest.mark.parametrize('variant', SMALL, ids=lambda variant: variant.name)
def test_equals_ours(variant, norm_eval):
    model = build(dict(variant.config, norm_eval=norm_eval, drop_path_rate=0.3)).train()
    plain = plain_form(model)
    assert list(plain.state_dict()) == list(model.state_dict())
    assert plain.training and not any(type(module) in PLAIN_FORMS for module in plain.modules())
    x = torch.randn(2, 3, 40, 33, dtype=torch.float64)
    assert_equal(step(model, x), step(plain, x))
    with torch.no_grad():
        assert_equal(model.eval()(x), plain.eval()(x))


@pytest.mark.parametrize('config', POOLED, ids=['one token', 'token per class'])
def test_pooling_equals_ours(config):
    model = build(config)
    plain = plain_form(model)
    x = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    for maps in (False, True):
        assert_equal(model.forward_pooled(x, maps), plain.forward_pooled(x, maps))


def test_live_map_statistics_at_inference():
    config = dict(type='DeepViT', arch='nano', stats_tokens='live')
    model = build(config).eval()
    x = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    with torch.no_grad():
        assert_equal(model(x), plain_form(model)(x))


def test_the_original_stays_as_it_is():
    model = build(dict(type='MetaFormer', arch='nano'))
    types = [type(module) for module in model.modules()]
    plain_form(model)
    assert [type(module) for module in model.modules()] == types
