import copy

import pytest
import torch
from torch import nn

from attnpool_backbones import ops
from attnpool_backbones.layers.re_attention import HeadMixing, ReAttention

HEADS, WIDTH, TOKENS = 3, 12, 10


def build(norm, stats_tokens='rescale', pretrain_tokens=TOKENS, scale=0.4, dtype=torch.float64):
    mixing = HeadMixing(HEADS, pretrain_tokens, norm, scale, stats_tokens)
    attention = ReAttention(WIDTH, HEADS, mixing).to(dtype)
    # Peaked maps, and norms that are not the identity.
    nn.init.normal_(attention.qkv.weight)
    if norm is not None:
        nn.init.normal_(mixing.norm.weight)
        nn.init.normal_(mixing.norm.bias)
    if norm == 'BN':
        nn.init.normal_(mixing.norm.running_mean)
        nn.init.uniform_(mixing.norm.running_var, 0.5, 2)
    return attention


@pytest.mark.parametrize('norm', ['BN', 'LN', None])
def test_maps_are_those_that_multiply_the_values(norm):
    attention = build(norm, pretrain_tokens=7)
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    out, lazy = attention(x, with_maps=True)
    with ops.formulas():
        expected, stored = attention(x, with_maps=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(lazy.mixed(slice(2, 5)), stored.mixed()[:, :, 2:5])


WITHOUT = {
    'theta': lambda mixing: setattr(mixing, 'theta', nn.Linear(HEADS, HEADS, bias=False)),
    'affine': lambda mixing: setattr(mixing, 'norm', nn.BatchNorm2d(HEADS, affine=False)),
    'bias': lambda mixing: setattr(mixing, 'norm', nn.LayerNorm(HEADS, bias=False)),
    'statistics': lambda mixing: setattr(
        mixing, 'norm', nn.BatchNorm2d(HEADS, track_running_stats=False)
    ),
}
"""What somebody may leave out of a mixing."""


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('part', WITHOUT)
def test_mixing_without_some_parameters(part, training):
    attention = build('LN' if part == 'bias' else 'BN', pretrain_tokens=7)
    WITHOUT[part](attention.mixing)
    attention.double().train(training)
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    computed = attention(x)
    with ops.formulas():
        torch.testing.assert_close(computed, attention(x))


def test_attention_without_mixing_has_softmax_maps():
    attention = ReAttention(WIDTH, HEADS).double()
    _, maps = attention(torch.randn(2, TOKENS, WIDTH, dtype=torch.float64), with_maps=True)
    torch.testing.assert_close(maps.mixed(), maps.softmax())
    torch.testing.assert_close(maps.mixed().sum(-1), torch.ones(2, HEADS, TOKENS).double())


@pytest.mark.parametrize('norm', ['BN', 'LN', None])
def test_rescaling_ignores_copies_of_tokens(norm):
    attention = build(norm).eval()
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    copies = attention(x.repeat_interleave(7, dim=1))
    torch.testing.assert_close(copies[:, ::7], attention(x))


def test_fixed_statistics_do_not_ignore_copies_of_tokens():
    attention = build('BN', 'fixed').eval()
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    copies = attention(x.repeat_interleave(7, dim=1))[:, ::7]
    assert (copies - attention(x)).norm() > 2 * attention(x).norm()


def test_live_statistics_at_inference_are_those_of_training():
    attention = build('BN', 'live', pretrain_tokens=5)
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    trained = attention.train()(x)
    before = copy.deepcopy(dict(attention.named_buffers()))
    torch.testing.assert_close(attention.eval()(x), trained)
    torch.testing.assert_close(dict(attention.named_buffers()), before)


def test_cumulative_running_statistics():
    attention = build('BN', dtype=torch.float32).train()
    norm = attention.mixing.norm
    norm.reset_running_stats()
    norm.momentum = None
    plain = copy.deepcopy(attention)
    for _ in range(3):
        x = torch.randn(2, TOKENS, WIDTH)
        attention(x)
        with ops.formulas():
            plain(x)
    torch.testing.assert_close(dict(attention.named_buffers()), dict(plain.named_buffers()))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(norm='GN'), r"norm of HeadMixing must be one of .*, not 'GN'"),
        (dict(stats_tokens='none'), r"stats_tokens of HeadMixing .*, not 'none'"),
        (dict(norm='LN', stats_tokens='live'), r"not 'live' with norm 'LN'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        HeadMixing(HEADS, TOKENS, **options)


@torch.no_grad()
def test_rounding_errors_of_files_stay_small():
    # maps that hardly differ: theta gives its bias and little more, and BatchNorm takes it away
    attention = build('BN', dtype=torch.float32).eval()
    theta, norm = attention.mixing.theta, attention.mixing.norm
    attention.qkv.weight *= 0.1
    theta.bias.fill_(1)
    norm.bias.zero_()
    norm.running_mean.copy_(theta.weight.sum(1) / TOKENS + theta.bias)
    norm.running_var.fill_(1e-7)
    x = torch.randn(2, TOKENS, WIDTH)
    exact = copy.deepcopy(attention).double()(x.double())

    def error():
        return float((attention(x) - exact).norm() / exact.norm())

    with ops.formulas():
        of_formula = error()
    with ops.recorded_forms():
        of_file = error()
    assert of_file < 2 * error() and 5 * of_file < of_formula, (of_file, error(), of_formula)
