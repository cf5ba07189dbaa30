"""The operators and their example inputs: one row each, or a few where an operator has forms."""

import torch
from mmcv.cnn.bricks import DropPath
from torch import nn

from attnpool_backbones.layers.activations import GELU
from attnpool_backbones.layers.star_relu import StarReLU
from attnpool_backbones.ops.activations import gelu, relu, silu
from attnpool_backbones.ops.attention import attention
from attnpool_backbones.ops.attention_pool import attention_pool, map_and_pool
from attnpool_backbones.ops.averages import position_mean
from attnpool_backbones.ops.conv_norm import conv_norm, conv_residual
from attnpool_backbones.ops.depthwise_conv import depthwise_conv
from attnpool_backbones.ops.gate import gated, gated_sum, shifted_sum
from attnpool_backbones.ops.global_context import global_context
from attnpool_backbones.ops.global_norm import global_norm
from attnpool_backbones.ops.kernel_attention import kernel_attention
from attnpool_backbones.ops.layer_norm import layer_norm2d
from attnpool_backbones.ops.layout import (
    channels_last_on_cpu,
    contiguous_map,
    convolved,
    in_format,
    max_pooled,
)
from attnpool_backbones.ops.linear import linear
from attnpool_backbones.ops.mean_and_max import channel_mean_and_max, position_mean_and_max
from attnpool_backbones.ops.mixed_attention import map_covariance, mixed_attention
from attnpool_backbones.ops.mlp import mlp
from attnpool_backbones.ops.pooling import pool_minus_identity
from attnpool_backbones.ops.re_attention import Mixing, re_attention
from attnpool_backbones.ops.relative_attention import relative_attention
from attnpool_backbones.ops.residual import residual
from attnpool_backbones.ops.sge import sge
from attnpool_backbones.ops.star_relu import squared_relu, star_relu
from attnpool_backbones.ops.token_attention import token_attention
from tests.ops.mmcv_rows import MMCV_ROWS
from tests.ops.rows import Draw, Row


def _map(draw: Draw) -> tuple:
    return (draw.map(draw.size(1, 5)),)


def _star_relu(draw: Draw) -> tuple:
    return *_map(draw), draw.tensor(1), draw.tensor(1)


def _gated(draw: Draw) -> tuple:
    (x,) = _map(draw)
    shape = draw.choice([(1, 1), tuple(x.shape[2:])])
    return x, draw.tensor(len(x), x.shape[1], *shape), True


def _gated_sum(draw: Draw) -> tuple:
    x, gate, _ = _gated(draw)
    return x, gate, draw.tensor(*x.shape)


def _linear(draw: Draw) -> tuple:
    c_in, c_out = draw.size(1, 5), draw.size(1, 5)
    shape = draw.choice([(2, 7, c_in), (1, 3, 4, c_in)])
    layer = draw.module(nn.Linear(c_in, c_out, bias=draw.choice([True, False])))
    return draw.tensor(*shape), layer, draw.choice([None, draw.tensor(c_out)])


def _mlp(act):
    def example(draw: Draw) -> tuple:
        width, hidden, bias = draw.size(1, 4), draw.size(1, 6), draw.choice([True, False])
        fc1, fc2 = nn.Linear(width, hidden, bias=bias), nn.Linear(hidden, width, bias=bias)
        layers = (draw.module(layer) for layer in (fc1, act(), fc2))
        return draw.tensor(2, 5, width), *layers, draw.choice([None, draw.tensor(width)])

    return example


def _conv_norm(size: int, training: bool, before: bool):
    def example(draw: Draw) -> tuple:
        c_in, c_out = draw.size(1, 4), draw.size(1, 5)
        options = dict(stride=draw.choice([1, 2]), bias=draw.choice([True, False]))
        conv = draw.module(nn.Conv2d(c_in, c_out, size, padding=size // 2, **options))
        norm = draw.module(nn.BatchNorm2d(c_out)).train(training)
        norm_before = draw.module(nn.BatchNorm2d(c_in)).eval() if before else None
        act = draw.choice([None, GELU(), nn.ReLU(inplace=True)])
        pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False) if before else None
        # Statistics of two values or so have unbounded derivatives.
        x = draw.tensor(3, c_in, 4 + draw.size(0, 3), 5)
        return x, conv, draw.choice([norm, None]), norm_before, pool, act

    return example


def _conv_residual(draw: Draw) -> tuple:
    (y,) = _map(draw)
    width, bias = draw.size(1, 5), draw.choice([True, False])
    conv = draw.module(nn.Conv2d(y.shape[1], width, 1, bias=bias))
    drop_path = DropPath(draw.choice([0.0, 0.4])).train(draw.choice([True, False]))
    x = draw.tensor(len(y), width, *y.shape[2:])
    return x, y, conv, drop_path, draw.choice([None, draw.tensor(width)])


def _tokens(draw: Draw, heads: int, queries: int, keys: int) -> tuple:
    batch, width = draw.size(1, 3), draw.size(1, 8)
    return tuple(draw.tensor(batch, heads, n, width) for n in (queries, keys, keys))


def _attention(draw: Draw) -> tuple:
    return _tokens(draw, draw.size(1, 3), draw.size(1, 9), draw.size(1, 9))


def _token_attention(draw: Draw) -> tuple:
    width = draw.size(2, 6)
    q, k, v = (draw.module(nn.Linear(width, width, bias=draw.choice([True, False]))) for _ in 'qkv')
    norm, x = draw.module(nn.LayerNorm(width, eps=0.1)), draw.map(width)
    among_tokens = draw.choice([True, False])
    return draw.tensor(1, draw.size(1, 4), width), x, norm, q, k, v, among_tokens


def _global_context(draw: Draw) -> tuple:
    (x,) = _map(draw)
    return x, draw.module(nn.Conv2d(x.shape[1], 1, 1, bias=draw.choice([True, False])))


def _attention_pool(one_bin: bool):
    def example(draw: Draw) -> tuple:
        heads = draw.size(1, 3)
        x = draw.map(heads * draw.size(1, 2))
        bins = (1, 1) if one_bin else (draw.size(1, 6), draw.size(1, 6))
        return x, draw.tensor(heads, x.shape[1]), bins

    return example


def _map_and_pool(draw: Draw) -> tuple:
    return _attention_pool(True)(draw)[:2]


def _map_and_pool_of_many_heads(draw: Draw) -> tuple:
    heads = 65  # too many for the one product of few heads
    channels = heads * draw.size(1, 2)
    return draw.map(channels), draw.tensor(heads, channels)


def _map_as_a_factor(outputs: tuple) -> tuple:
    return 2 * outputs[0], outputs[1]


def _mixed_attention(eps: float | None):
    def example(draw: Draw) -> tuple:
        heads, queries = draw.size(1, 4), draw.size(1, 40)
        tokens = _tokens(draw, heads, queries, draw.size(1, 40))
        offset = draw.choice([None, draw.tensor(heads)])
        return *tokens, draw.tensor(heads, heads), offset, eps, draw.size(0, queries)

    return example


def _map_covariance(draw: Draw) -> tuple:
    queries = draw.size(1, 40)
    q, k, _ = _tokens(draw, draw.size(1, 4), queries, draw.size(2, 40))
    return q, k, draw.size(0, queries)


def _re_attention(norm, training: bool, live: bool = False):
    def example(draw: Draw) -> tuple:
        heads, tokens = draw.size(2, 4), draw.size(3, 20)
        built = draw.module(norm(heads)).train(training) if norm else None
        mixing = Mixing(draw.module(nn.Linear(heads, heads)), built, 0.4, tokens / 7, live)
        return *_tokens(draw, heads, tokens, tokens), mixing

    return example


def _relative_attention(draw: Draw) -> tuple:
    heads, height, width = draw.size(1, 3), draw.size(1, 7), draw.size(1, 7)
    tokens = _tokens(draw, heads, height * width, height * width)
    return *tokens, draw.tensor(heads, 2 * height - 1, 2 * width - 1), draw.size(0, height)


def _kernel_attention(draw: Draw) -> tuple:
    return _relative_attention(draw)[:-1]


def _depthwise_conv(draw: Draw) -> tuple:
    (x,) = _map(draw)
    side = draw.choice([3, 5, 7, 9])
    return x, draw.tensor(x.shape[1], 1, side, side), draw.choice([None, draw.tensor(x.shape[1])])


def _pool_minus_identity(draw: Draw) -> tuple:
    return *_map(draw), draw.choice([1, 3, 5, 9])


def _norm(scaled: bool):
    def example(draw: Draw) -> tuple:
        channels = draw.size(2, 5)
        bias = draw.choice([None, draw.tensor(channels)])
        # Not one value alone: its deviation has no derivative.
        x = draw.tensor(2, channels, draw.size(1, 6), draw.size(2, 6))
        scale = (draw.choice([None, draw.tensor(channels)]),) if scaled else ()
        return x, draw.tensor(channels), bias, 1e-2, *scale

    return example


def _residual(draw: Draw) -> tuple:
    (y,) = _map(draw)
    scales = [draw.choice([None, draw.tensor(y.shape[1])]) for _ in range(2)]
    drop_path = DropPath(draw.choice([0.0, 0.4])).train(draw.choice([True, False]))
    return draw.choice([None, draw.tensor(*y.shape)]), y, drop_path, *scales


def _sge(normalize: bool = True):
    def example(draw: Draw) -> tuple:
        groups, width = draw.size(1, 4), draw.size(1, 10)
        shape = (draw.size(1, 3), groups * width, draw.size(1, 6), draw.size(2, 6))
        weight, bias = (draw.tensor(1, groups, 1, 1) for _ in range(2))
        shortcut = draw.choice([None, draw.tensor(*shape)])
        return draw.tensor(*shape), weight, bias, 1e-5, shortcut, normalize

    return example


def _convolved(draw: Draw) -> tuple:
    (x,) = _map(draw)
    return x, draw.module(nn.Conv2d(x.shape[1], 3, 3, stride=2, padding=1))


def _max_pooled(draw: Draw) -> tuple:
    return *_map(draw), nn.MaxPool2d(3, stride=2, padding=1)


ROWS = [
    *MMCV_ROWS,
    Row(operator=gelu, example=_map, overwrites=(0,)),
    Row(operator=relu, example=_map, overwrites=(0,)),
    Row(operator=silu, example=_map, overwrites=(0,)),
    Row(operator=squared_relu, example=_map, overwrites=(0,)),
    Row(operator=star_relu, example=_star_relu, overwrites=(0,)),
    Row(operator=gated, example=_gated, batched=(0, 1), overwrites=(0,)),
    Row(operator=gated_sum, example=_gated_sum, batched=(0, 1, 2), overwrites=(0,)),
    Row(operator=shifted_sum, example=_gated_sum, batched=(0, 1, 2), overwrites=(0,)),
    Row(operator=position_mean, example=_map),
    Row(operator=position_mean_and_max, example=_map),
    Row(operator=channel_mean_and_max, example=_map),
    Row(operator=linear, example=_linear),
    Row(operator=mlp, example=_mlp(GELU), name='mlp-gelu'),
    Row(operator=mlp, example=_mlp(StarReLU), name='mlp-star_relu'),
    *(
        Row(
            operator=conv_norm,
            example=_conv_norm(size, training, before),
            name=f'conv_norm-{size}-{"live" if training else "fixed"}{"-norm_before" * before}',
        )
        for size, before in [(1, False), (1, True), (3, False)]
        for training in (True, False)
    ),
    Row(operator=conv_residual, example=_conv_residual, batched=(0, 1)),
    Row(operator=attention, example=_attention, batched=(0, 1, 2)),
    Row(operator=token_attention, example=_token_attention, batched=(1,)),
    Row(operator=attention_pool, example=_attention_pool(True), name='attention_pool-one_bin'),
    Row(operator=attention_pool, example=_attention_pool(False)),
    Row(
        operator=map_and_pool,
        example=_map_and_pool,
        results=_map_as_a_factor,
    ),
    Row(
        operator=map_and_pool,
        example=_map_and_pool_of_many_heads,
        results=_map_as_a_factor,
        name='map_and_pool-many_heads',
    ),
    Row(operator=global_context, example=_global_context),
    Row(operator=mixed_attention, example=_mixed_attention(None), batched=(0, 1, 2)),
    Row(
        operator=mixed_attention,
        example=_mixed_attention(1e-3),
        batched=(0, 1, 2),
        name='mixed_attention-rms',
    ),
    Row(operator=map_covariance, example=_map_covariance, batched=(0, 1)),
    *(
        Row(
            operator=re_attention,
            example=_re_attention(*options),
            batched=(0, 1, 2),
            name=f're_attention-{name}',
            results=lambda outputs: (outputs[0], outputs[1].mixed()),
        )
        for name, options in dict(
            live=(nn.BatchNorm2d, True),
            fixed=(nn.BatchNorm2d, False),
            live_in_eval=(nn.BatchNorm2d, False, True),
            layer_norm=(nn.LayerNorm, True),
            no_norm=(None, True),
        ).items()
    ),
    Row(operator=relative_attention, example=_relative_attention, batched=(0, 1, 2)),
    Row(
        operator=kernel_attention, example=_kernel_attention, batched=(0, 1, 2), dynamic_since='2.7'
    ),  # FFT
    Row(operator=depthwise_conv, example=_depthwise_conv),
    Row(operator=pool_minus_identity, example=_pool_minus_identity),
    Row(operator=global_norm, example=_norm(scaled=True)),
    Row(operator=layer_norm2d, example=_norm(scaled=False)),
    Row(operator=residual, example=_residual, batched=(0, 1)),
    Row(operator=sge, example=_sge(), batched=(0, 4), overwrites=(0,)),
    Row(operator=sge, example=_sge(normalize=False), batched=(0, 4), name='sge-unnormalized'),
    Row(operator=in_format, example=lambda draw: (*_map(draw), torch.channels_last)),
    Row(operator=channels_last_on_cpu, example=_map),
    Row(operator=contiguous_map, example=_map),
    Row(operator=convolved, example=_convolved),
    Row(operator=max_pooled, example=_max_pooled),
]
