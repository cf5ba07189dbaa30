import pytest
import torch

from attnpool_backbones.layers.grid_attention import GridAttention
from attnpool_backbones.layers.relative_bias import RelativeBiasMlp, RelativeBiasTable

BIASES = {
    'none': lambda heads, window: None,
    'table': lambda heads, window: RelativeBiasTable(heads, (window, window)),
    'mlp': lambda heads, window: RelativeBiasMlp(heads, 8).eval(),
}


def build(bias='table', window=None, size=3):
    return GridAttention(6, 8, 10, head_dim=4, bias=BIASES[bias](2, size), window=window)


def reference(attention, x):
    """One image and window, head by head, with an explicit loop over offsets."""
    _, height, width = x.shape
    tokens = x.flatten(1).T
    qkv = (tokens @ attention.qkv.weight.T + attention.qkv.bias).view(-1, 2, 3, 4)
    table = None
    if attention.bias is not None:
        side = attention.window or None
        table = attention.bias(side or height, side or width)
        middle = ((side or height) - 1, (side or width) - 1)
    heads = []
    for head in range(2):
        q, k, v = qkv[:, head].unbind(1)
        scores = q @ k.T / 2
        if table is not None:
            for i in range(len(scores)):
                for j in range(len(scores)):
                    dh, dw = i // width - j // width, i % width - j % width
                    scores[i, j] += table[head, dh + middle[0], dw + middle[1]]
        heads.append(scores.softmax(-1) @ v)
    out = torch.cat(heads, 1) @ attention.proj.weight.T + attention.proj.bias
    return out.T.unflatten(1, (height, width))


@pytest.mark.parametrize('bias', BIASES)
@torch.no_grad()
def test_whole_map(bias):
    attention = build(bias)
    x = torch.randn(2, 6, 3, 3)
    expected = torch.stack([reference(attention, image) for image in x])
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize('bias', BIASES)
@pytest.mark.parametrize('size', [(6, 6), (7, 5), (2, 3), (3, 8), (1, 1)])
@torch.no_grad()
def test_windows(bias, size):
    attention = build(bias, window=3)
    x = torch.randn(2, 6, *size)
    y = attention(x)
    assert y.shape == (2, 10, *size)
    for top in range(0, size[0], 3):
        for left in range(0, size[1], 3):
            part = (slice(None), slice(top, top + 3), slice(left, left + 3))
            for image, expected in zip(x, y, strict=True):
                torch.testing.assert_close(reference(attention, image[part]), expected[part])


@torch.no_grad()
def test_bias_after_the_softmax():
    attention = GridAttention(
        6, 8, 10, head_dim=4, bias=RelativeBiasTable(2, (3, 4)), bias_place='after'
    )
    x = torch.randn(2, 6, 3, 4)
    qkv = attention.qkv(x.flatten(2).mT).unflatten(-1, (2, 3, 4))  # B, N, h, 3, d
    q, k, v = (t.transpose(1, 2) for t in qkv.unbind(3))
    table = attention.bias(3, 4)
    weights = (q @ k.mT / 2).softmax(-1)
    for i in range(12):
        for j in range(12):
            weights[:, :, i, j] += table[:, i // 4 - j // 4 + 2, i % 4 - j % 4 + 3]
    expected = attention.proj((weights @ v).transpose(1, 2).flatten(2)).mT.unflatten(2, (3, 4))
    torch.testing.assert_close(attention(x), expected)


@torch.no_grad()
def test_scale():
    attention = build()
    x, scale = torch.randn(1, 6, 4, 5), torch.randn(10)
    torch.testing.assert_close(attention(x, scale), attention(x) * scale.view(-1, 1, 1))


def test_result_lies_channels_last():
    x = torch.randn(2, 6, 4, 5).to(memory_format=torch.channels_last)
    assert build()(x).is_contiguous(memory_format=torch.channels_last)
