"""The pyramid after columnar trunks."""

import pytest
import torch

from attnpool_backbones.registry import MODELS


def build(**options):
    torch.manual_seed(0)
    return MODELS.build(dict(type='ScalePyramid', in_channels=8, **options))


@pytest.mark.parametrize('maps', [1, 4])
@pytest.mark.parametrize('size', [(32, 32), (64, 96), (224, 160)])
def test_exact_sizes_when_the_stride_divides(maps, size):
    taps = [torch.randn(2, 8, size[0] // 16, size[1] // 16) for _ in range(maps)]
    outputs = build()(tuple(taps))
    assert [tuple(y.shape) for y in outputs] == [
        (2, 8, -(-size[0] // s), -(-size[1] // s)) for s in (4, 8, 16, 32)
    ]


@pytest.mark.parametrize('size', [(33, 47), (100, 300), (225, 191), (800, 1333)])
def test_exact_sizes_for_odd_images(size):
    tap = torch.randn(1, 8, -(-size[0] // 16), -(-size[1] // 16))
    neck = build()
    outputs = neck(tap, image_size=size)
    assert [tuple(y.shape[-2:]) for y in outputs] == [
        (-(-size[0] // s), -(-size[1] // s)) for s in (4, 8, 16, 32)
    ]
    for y, whole in zip(outputs, neck(tap), strict=True):
        torch.testing.assert_close(y, whole[..., : y.shape[-2], : y.shape[-1]])


def test_layers_are_those_of_xcit():
    kinds = [[type(m).__name__ for m in level.modules()][1:] for level in build().rescale]
    deconv = 'ConvTranspose2d'
    assert kinds == [[deconv, 'BatchNorm2d', 'GELU', deconv], [deconv], [], []]
    assert type(build().rescale[3]).__name__ == 'MaxPool2d'
    # Two transposed convolutions, a BatchNorm and one transposed convolution, with biases.
    params = sum(p.numel() for p in MODELS.build(
        dict(type='ScalePyramid', in_channels=384)).parameters())  # fmt: skip
    assert params == 3 * (384 * 384 * 4 + 384) + 2 * 384


def test_every_parameter_is_used():
    neck = build(in_stride=8, out_strides=(4, 8, 16, 32), tap_norm_cfg=dict(type='LN'))
    outputs = neck([torch.randn(2, 8, 8, 12) for _ in range(4)])
    assert [tuple(y.shape[-2:]) for y in outputs] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert all(y.is_contiguous() for y in outputs)  # as mmcv's RoIAlign takes for granted
    sum(y.square().sum() for y in outputs).backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None] == []


def test_errors():
    with pytest.raises(ValueError, match='takes 1 or 4 maps, not 3'):
        build()([torch.randn(1, 8, 2, 2)] * 3)
    with pytest.raises(ValueError, match='power of two; 12 is not'):
        build(out_strides=(4, 12))


def test_works_in_front_of_fpn_and_upernet():
    from mmdet.models import FPN
    from mmseg.models import UPerHead

    taps = [torch.randn(2, 8, 4, 5) for _ in range(4)]
    pyramid = build()(taps)
    levels = FPN([8] * 4, 16, num_outs=5)(pyramid)
    assert [tuple(y.shape[-2:]) for y in levels] == [(16, 20), (8, 10), (4, 5), (2, 3), (1, 2)]
    head = UPerHead(in_channels=[8] * 4, in_index=[0, 1, 2, 3], channels=8, num_classes=3)
    assert head(pyramid).shape == (2, 3, 16, 20)
