import copy

import pytest
import torch
from torch import nn

from attnpool_backbones.layers.re_attention import HeadMixing, ReAttention

HEADS, WIDTH, TOKENS = 3, 12, 10


class PlainMixing(nn.Module):
    """The published formula on whole maps: 1x1 convolution over heads, norm, scale."""

    def __init__(self, mixing, t):
        super().__init__()
        self.conv = nn.Conv2d(HEADS, HEADS, 1)
        self.conv.weight.data = mixing.theta.weight.data[:, :, None, None].clone()
        self.conv.bias.data = mixing.theta.bias.data.clone()
        self.norm = copy.deepcopy(mixing.norm)
        self.scale, self.t = mixing.scale, t

    def forward(self, maps):
        y = self.conv(maps * self.t)
        if isinstance(self.norm, nn.LayerNorm):
            y = self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        elif self.norm is not None:
            y = self.norm(y)
        return y * (self.scale / self.t)


def plain_forward(attention, mixing, x):
    qkv = attention.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    maps = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
    if mixing is not None:
        maps = mixing(maps)
    return attention.proj((maps @ v).transpose(1, 2).flatten(2)), maps


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


MODES = [('BN', True), ('BN', False), ('LN', True), (None, True)]


@pytest.mark.parametrize('tokens', [TOKENS, 23])
@pytest.mark.parametrize('stats_tokens', ['rescale', 'fixed'])
@pytest.mark.parametrize(('norm', 'training'), MODES)
def test_equals_the_plain_formula(norm, training, stats_tokens, tokens):
    attention = build(norm, stats_tokens).train(training)
    t = tokens / TOKENS if stats_tokens == 'rescale' else 1.0
    plain = PlainMixing(attention.mixing, t).train(training)
    x = torch.randn(2, tokens, WIDTH, dtype=torch.float64)

    results = []
    for forward, norm_layer in [
        (lambda x: attention(x, with_maps=True), attention.mixing.norm),
        (lambda x: plain_forward(attention, plain, x), plain.norm),
    ]:
        leaf = x.clone().requires_grad_()
        out, maps = forward(leaf)
        parameters = [leaf, *attention.qkv.parameters(), *attention.proj.parameters()]
        if norm is not None:
            parameters += list(norm_layer.parameters())
        gradients = torch.autograd.grad(out.square().sum(), parameters, retain_graph=True)
        mixed = maps if isinstance(maps, torch.Tensor) else maps.mixed()
        buffers = dict(norm_layer.named_buffers()) if norm == 'BN' else {}
        results.append((out, mixed, gradients, buffers))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(('norm', 'training'), MODES)
def test_gradients_of_theta(norm, training):
    attention = build(norm).train(training)
    plain = PlainMixing(attention.mixing, 1.0).train(training)
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    attention(x).square().sum().backward()
    plain_forward(attention, plain, x)[0].square().sum().backward()
    theta = attention.mixing.theta
    torch.testing.assert_close(theta.weight.grad, plain.conv.weight.grad.flatten(1))
    torch.testing.assert_close(theta.bias.grad, plain.conv.bias.grad)


@pytest.mark.parametrize(('norm', 'training'), MODES)
def test_gradcheck(norm, training):
    attention = build(norm).train(training)
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attention, (x,))


def test_plain_attention_has_softmax_maps():
    attention = ReAttention(WIDTH, HEADS).double()
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    expected, maps = plain_forward(attention, None, x)
    computed, lazy = attention(x, with_maps=True)
    torch.testing.assert_close(computed, expected)
    torch.testing.assert_close(lazy.softmax(), maps)
    torch.testing.assert_close(lazy.mixed(slice(2, 5)), maps[:, :, 2:5])


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
    plain = PlainMixing(attention.mixing, 1.0).train()
    for _ in range(3):
        x = torch.randn(2, TOKENS, WIDTH)
        attention(x)
        plain_forward(attention, plain, x)
    torch.testing.assert_close(dict(norm.named_buffers()), dict(plain.norm.named_buffers()))


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
