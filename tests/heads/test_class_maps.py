"""CAM and Grad-CAM against what their papers define."""

import pytest
import torch

from attnpool_backbones.heads import AttentionPoolingHead, AveragePoolingHead, ImageTagHead
from attnpool_backbones.heads.grad_cam import grad_cam


def test_class_activation_maps_average_to_the_logits():
    head, x = AveragePoolingHead(12, 4, mlp_ratio=0.5), torch.randn(2, 12, 5, 3)
    logits, maps = head((torch.randn(2, 3, 9, 9), x), return_maps=True)
    assert head(x).maps is None
    torch.testing.assert_close(maps.mean((2, 3)) + head.classifier.bias, logits)


@pytest.mark.parametrize(
    'head',
    [
        AveragePoolingHead(6, 3, mlp_ratio=0.5),
        AttentionPoolingHead(6, 3, per_class=True, init_std=None),
    ],
    ids=['average', 'attention'],
)
def test_grad_cam_by_finite_differences(head):
    head, x = head.double(), torch.randn(1, 6, 3, 2, dtype=torch.double)
    step = 1e-5
    for k in range(3):
        gradient = torch.zeros_like(x)
        for i in range(x.numel()):
            moved = torch.zeros(x.numel(), dtype=torch.double)
            moved[i] = step
            moved = moved.view_as(x)
            with torch.no_grad():
                difference = head(x + moved).logits[0, k] - head(x - moved).logits[0, k]
            gradient.view(-1)[i] = difference / (2 * step)
        weights = gradient[0].mean((1, 2))
        expected = sum(w * plane for w, plane in zip(weights, x[0], strict=True)).clamp(min=0)
        with torch.no_grad():
            found = grad_cam(lambda x: head(x).logits, x)[0, k]
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-5)


def test_the_image_head_takes_other_poolings():
    x = torch.randn(2, 8, 4, 4)
    pooling = dict(type='attnpool_backbones.AveragePoolingHead', mlp_ratio=0.25)
    torch.manual_seed(3)
    cam = ImageTagHead(8, 5, pooling=pooling)
    torch.manual_seed(3)
    gradients = ImageTagHead(8, 5, pooling=pooling, use_grad_cam=True)
    with torch.no_grad():
        first, second = cam(x, return_maps=True), gradients(x, return_maps=True)
    torch.testing.assert_close(first.logits, second.logits)
    assert first.maps.shape == second.maps.shape == (2, 5, 4, 4)
    assert first.maps.min() < 0 <= second.maps.min() and not second.maps.requires_grad


@pytest.mark.parametrize('autocast', [False, True], ids=['float32', 'autocast'])
@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_grad_cam_where_no_gradients_are_kept(mode, autocast):
    head, x = ImageTagHead(8, 5, use_grad_cam=True, max_channels=6), torch.randn(1, 8, 4, 4)
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        expected = head(x, return_maps=True).maps
    with mode(), torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        found = head(x.clone(), return_maps=True)
    assert expected.any()
    torch.testing.assert_close(found.maps, expected)
    assert not found.logits.requires_grad and not found.maps.requires_grad
