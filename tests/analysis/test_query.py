import numpy as np
import pytest
import torch

from attnpool_backbones.analysis.query import query_maps
from attnpool_backbones.backbones import AttnResNet, CoAtNet, DeepViT, MetaFormer
from attnpool_backbones.command_line import UserError
from tests.analysis.subjects import as_subject, golden_subject


@pytest.mark.parametrize('block', [0, 2, -1])
def test_deepvit_is_the_row_of_the_official_map(block, tmp_path):
    subject, fixture, inputs = golden_subject('deepvit_small_reattn_cal', tmp_path)
    found = query_maps(subject, inputs[:1], (40, 21), block)  # stride 16: row 2, column 1
    official = fixture[f'attn_{block % 4}'][0, :, 1 + 2 * 4 + 1]  # H, 17
    assert found.cell == (2, 1) and found.layer == f'blocks.{block % 4}.attn'
    np.testing.assert_allclose(found.maps.flatten(1).numpy(), official[:, 1:], atol=5e-4)
    np.testing.assert_allclose(found.class_token.numpy(), official[:, 0], atol=5e-4)
    assert found.static is None and found.kernel is None


@torch.no_grad()
def test_coatnet_falls_into_a_static_and_an_adaptive_part():
    model = CoAtNet(arch='nano').eval()
    x = torch.randn(1, 3, 96, 128)
    layer = model.stages[2].blocks[1].attn
    torch.nn.init.normal_(layer.bias.relative_position_bias_table)
    seen = []
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    found = query_maps(as_subject(model), x, (50, 100), 1)
    assert found.layer == 'stages.2.blocks.1.attn' and found.cell == (3, 6)  # stride 16: 6 x 8
    qkv = layer.qkv(seen[0].flatten(2).mT).unflatten(-1, (layer.heads, 3, layer.head_dim))
    q, k = qkv[0, :, :, 0], qkv[0, :, :, 1]  # N, H, d
    products = torch.einsum('hd,nhd->hn', q[3 * 8 + 6], k) * layer.head_dim**-0.5
    table = layer.bias(6, 8)
    bias = torch.stack([table[:, 3 - r + 5, 6 - c + 7] for r in range(6) for c in range(8)], 1)
    for name, logits in dict(maps=products + bias, static=bias, adaptive=products).items():
        expected = logits.softmax(-1).unflatten(1, (6, 8))
        torch.testing.assert_close(getattr(found, name), expected, atol=1e-5, rtol=1e-4)
    assert found.spread['static'] == pytest.approx(float(bias.std(-1).mean()), rel=1e-4)
    # As a convolution reads it: what is one row below and two columns left of the query.
    assert torch.equal(found.kernel[:, 5 + 1, 7 - 2], bias[:, 4 * 8 + 4])


@pytest.mark.parametrize(
    'build',
    [
        lambda: CoAtNet(arch='nano', windows=(None, None, 4, None)),
        lambda: MetaFormer(arch='caformer_nano', windows=(None, None, 4, None)),
        lambda: DeepViT(arch='nano_vit_12b', window=4),
        lambda: DeepViT(arch='nano', window=4, map_norm=None),
    ],
    ids=['CoAtNet', 'MetaFormer', 'ViT', 'DeepViT'],
)
def test_windows_end_the_view(build):
    model = build().eval()
    found = query_maps(as_subject(model), torch.randn(1, 3, 96, 128), (50, 100), 0)
    (top, left) = (start // 4 * 4 for start in found.cell)
    inside = found.maps[:, top : top + 4, left : left + 4]
    assert inside.shape[1:] == (4, 4) and inside.shape != found.maps.shape
    assert (inside != 0).all() and found.maps.count_nonzero() == inside.numel()
    if not isinstance(model, DeepViT):
        assert found.class_token is None
        assert torch.allclose(inside.sum((1, 2)), torch.ones(len(inside)), atol=1e-5)
    elif not model.arch.reattention:
        total = inside.sum((1, 2)) + found.class_token
        assert torch.allclose(total, torch.ones(len(inside)), atol=1e-5)


def test_caformer():
    model = MetaFormer(arch='caformer_nano').eval()
    found = query_maps(as_subject(model), torch.randn(1, 3, 64, 96), (0, 95))
    assert found.cell == (0, found.maps.shape[2] - 1)
    assert torch.allclose(found.maps.sum((1, 2)), torch.ones(len(found.maps)), atol=1e-5)


@pytest.mark.parametrize(
    'model, pixel, block, message',
    [
        (lambda: AttnResNet(arch='nano'), (1, 1), -1, 'no self-attention'),
        (lambda: MetaFormer(arch='nano'), (1, 1), -1, 'no self-attention'),
        (lambda: CoAtNet(arch='nano'), (1, 1), 99, r'--block 99: model has \d+ attention layers'),
        (lambda: CoAtNet(arch='nano'), (64, 1), -1, 'row 64, column 1 is not in the image'),
    ],
)
def test_what_is_not_there_gets_a_clear_line(model, pixel, block, message):
    with pytest.raises(UserError, match=message):
        query_maps(as_subject(model()), torch.randn(1, 3, 64, 64), pixel, block)
