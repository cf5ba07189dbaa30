"""Counting of parameters and multiply-accumulates."""

import torch
from torch import nn

from attnpool_backbones.layers.attention_pooling import AttentionPooling
from attnpool_backbones.ops.attention import attention
from attnpool_backbones.zoo.complexity import count_macs, count_parameters


def test_convolution_and_linear():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.Flatten(), nn.Linear(128, 5))
    assert count_parameters(model) == 3 * 8 * 9 + 8 + 128 * 5 + 5
    assert count_macs(lambda: model(torch.zeros(2, 3, 4, 4))) == 2 * (16 * 3 * 8 * 9 + 128 * 5)


def test_fused_attention_counts():
    q, k = torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 6, 4)
    assert count_macs(lambda: attention(q, k, k)) == 2 * (2 * 5 * 6 * 4)


def test_attention_pooling_counts_as_in_the_article():
    pool = AttentionPooling(8, num_tokens=2)
    linear = 2 * 8 * 8 * 2 + 6 * 8 * 8 * 2 + 2 * (2 * 8 * 24)  # q, proj; k, v; mlp
    attended = 2 * (2 * 6 * 8)
    # the counter watches the layers, so keys and values of all positions are computed
    assert count_macs(lambda: pool(torch.zeros(1, 8, 2, 3))) == linear + attended


def test_views_of_parameters_without_gradients_count():
    layer, tokens = nn.Linear(4, 5), nn.Parameter(torch.zeros(1, 4))

    @torch.no_grad()
    def forward():
        layer(tokens.expand(3, 4))

    assert count_macs(forward) == 3 * 4 * 5
