"""CAM and Grad-CAM against what their papers define."""

import copy

import pytest
import torch
from torch import nn

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


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def _replace(head):
    head.classifier = nn.Sequential(head.classifier, Doubled())


def _hook(head):
    head.classifier.register_forward_hook(lambda layer, x, y: 2 * y)


@pytest.mark.parametrize('double', [_replace, _hook], ids=['replaced', 'hooked'])
@pytest.mark.parametrize(
    'head',
    [
        AveragePoolingHead(6, 3),
        AveragePoolingHead(6, 3, norm='BN'),
        AttentionPoolingHead(6, 3, per_class=True),
        AttentionPoolingHead(6, 3),
    ],
    ids=['average', 'average-norm', 'attention-per_class', 'attention'],
)
@torch.no_grad()
def test_a_foreign_classifier_makes_logits_and_class_maps(head, double):
    head, x = copy.deepcopy(head).eval(), torch.randn(2, 6, 4, 3)
    nn.init.normal_(head.classifier.bias)
    doubled = copy.deepcopy(head)
    for parameter in doubled.classifier.parameters():
        parameter *= 2
    double(head)
    torch.testing.assert_close(head(x, return_maps=True), doubled(x, return_maps=True))


def test_watchers_of_the_classifier_see_the_logits_last():
    head, seen = AveragePoolingHead(6, 3), []
    head.classifier.register_forward_hook(lambda layer, x, y: seen.append(y))
    logits = head(torch.randn(2, 6, 4, 3), return_maps=True).logits
    assert seen[-1] is logits


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
