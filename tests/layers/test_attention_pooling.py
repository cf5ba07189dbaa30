"""Attention pooling on any map; the golden tests compare it with the official code."""

import pytest
import torch

from attnpool_backbones.heads import AttentionPoolingHead
from attnpool_backbones.layers.attention_pool import AttentionPool2d
from attnpool_backbones.layers.attention_pooling import AttentionPooling


def make(num_tokens, channels=16, **options):
    torch.manual_seed(0)
    return AttentionPooling(channels, num_tokens=num_tokens, layer_scale_init=1.0, **options)


@pytest.mark.parametrize('num_tokens', [1, 7])
@pytest.mark.parametrize('size', [(1, 1), (5, 3), (12, 12)])
def test_shapes_and_rows(num_tokens, size):
    tokens, maps = make(num_tokens)(torch.randn(2, 16, *size), return_maps=True)
    assert tokens.shape == (2, num_tokens, 16)
    assert maps.shape == (2, num_tokens, *size)
    total = maps.flatten(2).sum(-1)
    if num_tokens == 1:  # the rest of the row is the attention to the class token itself
        assert (total < 1).all()
    else:
        torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize('num_tokens', [1, 7])
def test_maps_do_not_change_the_tokens(num_tokens):
    pool, x = make(num_tokens), torch.randn(2, 16, 6, 5)
    torch.testing.assert_close(pool(x).tokens, pool(x, return_maps=True).tokens)
    assert pool(x).maps is None


@pytest.mark.parametrize('num_tokens', [1, 3])
def test_gradcheck(num_tokens):
    pool = make(num_tokens, channels=4).double()
    x = torch.randn(2, 4, 3, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pool(x).tokens, x)
    assert torch.autograd.gradcheck(lambda x: pool(x, return_maps=True), x)


def test_positions_are_a_set():
    pool, x = make(3), torch.randn(1, 16, 4, 4)
    order = torch.randperm(16)
    shuffled = x.flatten(2)[..., order].unflatten(-1, (4, 4))
    tokens, maps = pool(x, return_maps=True)
    tokens_shuffled, maps_shuffled = pool(shuffled, return_maps=True)
    torch.testing.assert_close(tokens_shuffled, tokens)
    torch.testing.assert_close(maps_shuffled.flatten(2), maps.flatten(2)[..., order])


@pytest.mark.parametrize('per_class', [False, True])
def test_head(per_class):
    torch.manual_seed(0)
    head = AttentionPoolingHead(16, num_classes=5, per_class=per_class)
    x = torch.randn(2, 16, 4, 3)
    logits, maps = head((torch.randn(2, 8, 8, 6), x), return_maps=True)
    assert logits.shape == (2, 5)
    assert maps.shape == (2, 5 if per_class else 1, 4, 3)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    # Each class reads its own row of the classifier.
    tokens = head.norm(head.pool(x).tokens).expand(-1, 5, -1)
    expected = (tokens * head.classifier.weight).sum(-1) + head.classifier.bias
    torch.testing.assert_close(logits, expected)
    head.classifier.register_parameter('bias', None)
    expected = (tokens * head.classifier.weight).sum(-1)
    torch.testing.assert_close(head(x).logits, expected)


class _Tokens(AttentionPooling):
    def forward(self, x):
        return super().forward(x).tokens


def _exported(layer, x):
    number = {0: torch.export.Dim('number', min=1, max=64)}
    return torch.export.export(layer, (x,), dynamic_shapes=(number,), strict=False).module()


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('record', [_exported, torch.jit.trace], ids=['export', 'trace'])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    'layer',
    [
        _Tokens(16),
        _Tokens(16, num_tokens=7),
        AttentionPool2d(16),
        AttentionPool2d(16, bins=2, heads=4),
    ],
    ids=['token', 'tokens', 'pool', 'bins'],
)
def test_recorded_layers_take_any_number_of_images(layer, layout, record):
    x = torch.randn(5, 16, 4, 6).contiguous(memory_format=layout)
    with torch.no_grad():
        recorded = record(layer, x[:2])
        for number in (3, 5):
            torch.testing.assert_close(recorded(x[:number]), layer(x[:number]))
