"""mmcv's own functions and layers, run with our operators, equal the formulas."""

import importlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attnpool_backbones.mmcv_operators import extension
from attnpool_backbones.ops.carafe import carafe
from attnpool_backbones.ops.deform_attention import deform_attention
from attnpool_backbones.ops.deform_conv import deform_conv2d
from attnpool_backbones.ops.deform_roi_pool import deform_roi_pool
from attnpool_backbones.ops.focal_loss import sigmoid_focal_loss, softmax_focal_loss
from attnpool_backbones.ops.masked_conv import masked_conv2d
from attnpool_backbones.ops.nms import nms
from attnpool_backbones.ops.psa_mask import psa_mask
from attnpool_backbones.ops.roi_align import roi_align
from attnpool_backbones.ops.roi_pool import roi_pool
from tests.ops import mmcv_rows
from tests.ops.rows import Draw


def of_mmcv(module: str, function: str, *indices: int, **fixed) -> Callable:
    """Returns mmcv's function of chosen arguments, in its order, of our operator's."""

    def call(*args):
        found = importlib.import_module(f'mmcv.ops.{module}')
        for name in function.split('.'):
            found = getattr(found, name)
        return found(*(args[i] for i in indices), *fixed.values())

    return call


ATTENTION = 'MultiScaleDeformableAttnFunction.apply'  # mmcv uses it on CUDA only
CASES = {
    'roi_align-avg': (
        'roi_align',
        of_mmcv('roi_align', 'roi_align', 0, 1, 2, 3, 4, 5, 6),
        roi_align,
        lambda draw: mmcv_rows.maps_and_rois(draw, 'avg'),
    ),
    'roi_align-max': (
        'roi_align',
        of_mmcv('roi_align', 'roi_align', 0, 1, 2, 3, 4, 5, 6),
        roi_align,
        lambda draw: mmcv_rows.maps_and_rois(draw, 'max'),
    ),
    'roi_pool': (
        'roi_pool',
        of_mmcv('roi_pool', 'roi_pool', 0, 1, 2, 3),
        roi_pool,
        mmcv_rows.maps_and_rois_to_pool,
    ),
    'deform_roi_pool': (
        'deform_roi_pool',
        of_mmcv('deform_roi_pool', 'deform_roi_pool', 0, 1, 2, 3, 4, 5),
        deform_roi_pool,
        lambda draw: mmcv_rows.maps_and_moved_rois(draw, True),
    ),
    'deform_roi_pool-still': (
        'deform_roi_pool',
        of_mmcv('deform_roi_pool', 'deform_roi_pool', 0, 1, 2, 3, 4, 5),
        deform_roi_pool,
        lambda draw: mmcv_rows.maps_and_moved_rois(draw, False),
    ),
    'deform_conv': (
        'deform_conv',
        of_mmcv('deform_conv', 'deform_conv2d', 0, 1, 2, 5, 6, 7, 8, 9),
        deform_conv2d,
        lambda draw: mmcv_rows.maps_and_offsets(draw, False),
    ),
    'modulated_deform_conv': (
        'modulated_deform_conv',
        of_mmcv('modulated_deform_conv', 'modulated_deform_conv2d', 0, 1, 4, 2, 3, 5, 6, 7, 8, 9),
        deform_conv2d,
        lambda draw: mmcv_rows.maps_and_offsets(draw, True),
    ),
    'deform_attention': (
        'multi_scale_deform_attn',
        of_mmcv('multi_scale_deform_attn', ATTENTION, 0, 1, 2, 3, 4, im2col_step=64),
        deform_attention,
        mmcv_rows.values_and_locations,
    ),
    'carafe': (
        'carafe',
        of_mmcv('carafe', 'carafe', 0, 1, 2, 3, 4),
        carafe,
        mmcv_rows.features_and_masks,
    ),
    'psa_mask': (
        'psa_mask',
        lambda masks, kind, size: of_mmcv('psa_mask', 'psa_mask', 0, 1, 2)(
            masks, int(kind == 'distribute'), size
        ),
        psa_mask,
        mmcv_rows.masks_of_pixels,
    ),
    'sigmoid_focal_loss': (
        'focal_loss',
        of_mmcv('focal_loss', 'sigmoid_focal_loss', 0, 1, 2, 3, weight=None, reduction='sum'),
        sigmoid_focal_loss,
        mmcv_rows.logits_and_targets,
    ),
    'softmax_focal_loss': (
        'focal_loss',
        of_mmcv('focal_loss', 'softmax_focal_loss', 0, 1, 2, 3, weight=None, reduction='sum'),
        softmax_focal_loss,
        mmcv_rows.logits_and_targets,
    ),
}


@pytest.fixture
def with_our_operators(monkeypatch):
    """Gives a module of mmcv our operators, also where it has compiled ones."""

    def give(name: str):
        module = importlib.import_module(f'mmcv.ops.{name}')
        monkeypatch.setattr(module, 'ext_module', extension)
        return module

    return give


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('seed', range(4))
def test_functions_equal_formulas(with_our_operators, name, seed):
    module, function, operator, example = CASES[name]
    with_our_operators(module)
    args = example(Draw(seed))
    leaves = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    computed, expected = function(*args), operator.formula(*args)
    if 'loss' in name:
        expected = expected.sum()
    torch.testing.assert_close(computed, expected)
    if not leaves:
        return
    weights = torch.randn_like(computed)
    for ours, formula in zip(
        torch.autograd.grad(computed, leaves, weights),
        torch.autograd.grad(expected, leaves, weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, formula)


EMPTY = {
    **{name: (0, 1) for name in CASES if name.startswith('roi_') or 'loss' in name},
    'deform_roi_pool': (0, 1, 2),
    'deform_roi_pool-still': (0, 1),
    'deform_attention': (0, 3, 4),
    'carafe': (0, 1),
    'psa_mask': (0,),
}
"""Case -> arguments with an entry for each image, RoI or row. mmcv's own code of deform_conv
divides by the number of images, that of its modulated form refuses to have none."""


@pytest.mark.parametrize('name', EMPTY)
def test_batches_without_images(with_our_operators, name):
    module, function, _, example = CASES[name]
    with_our_operators(module)
    args = list(example(Draw(0)))
    whole = function(*args)
    for index in EMPTY[name]:
        args[index] = args[index].detach()[:0].requires_grad_(args[index].requires_grad)
    computed = function(*args)
    assert computed.shape == (whole.shape if 'loss' in name else (0, *whole.shape[1:]))
    leaves = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    # mmcv gives an empty offset no gradient
    gradients = torch.autograd.grad(computed.sum(), leaves, allow_unused=True)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        assert leaf.numel() == 0 or gradient.shape == leaf.shape and not gradient.any()


def test_modulated_convolution_of_no_images():
    x, offset, weight, bias, mask, stride, padding, dilation, *groups = (
        a.detach() if isinstance(a, Tensor) else a
        for a in mmcv_rows.maps_and_offsets(Draw(0), True)
    )
    output = x.new_ones(0, len(weight), *offset.shape[2:])
    x, offset, mask, room = x[:0], offset[:0], mask[:0], x.new_empty(0)
    inputs = x, weight, bias, room, offset, mask
    form = *weight.shape[2:], *stride, *padding, *dilation, *groups, True
    extension.modulated_deform_conv_forward(*inputs, output, room, *form)
    grads = [torch.zeros_like(t) for t in (x, weight, bias, offset, mask)]
    extension.modulated_deform_conv_backward(*inputs, room, *grads, output, *form)
    assert not any(grad.any() for grad in grads)


def test_masked_convolution(with_our_operators):
    module = with_our_operators('masked_conv')
    x, mask, weight, bias, padding = (
        a.detach() if isinstance(a, Tensor) else a for a in mmcv_rows.map_and_mask(Draw(0))
    )
    computed = module.masked_conv2d(x, mask, weight, bias, padding)
    torch.testing.assert_close(computed, masked_conv2d.formula(x, mask, weight, bias, padding))


@pytest.mark.parametrize('agnostic', [True, False])
def test_batched_nms_keeps_classes_apart(with_our_operators, agnostic):
    module = with_our_operators('nms')
    boxes, scores, threshold = mmcv_rows.boxes_and_scores(Draw(1), 300)
    classes = torch.randint(3, scores.shape, generator=torch.Generator().manual_seed(0))
    config = dict(type='nms', iou_threshold=threshold)
    dets, kept = module.batched_nms(boxes, scores, classes, config, class_agnostic=agnostic)
    groups = [classes >= 0] if agnostic else [classes == c for c in range(3)]
    expected = [g.nonzero()[nms.formula(boxes[g], scores[g], threshold), 0] for g in groups]
    assert sorted(kept.tolist()) == sorted(torch.cat(expected).tolist())
    torch.testing.assert_close(dets, torch.cat([boxes[kept], scores[kept].unsqueeze(1)], 1))


def test_soft_nms_and_groups(with_our_operators):
    module = with_our_operators('nms')
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    scores = torch.tensor([0.9, 0.8, 0.5])
    dets, kept = module.soft_nms(boxes, scores, iou_threshold=0.3, method='linear')
    assert kept.tolist() == [0, 2, 1]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.5, 0.8 * 0.1]))
    groups = module.nms_match(torch.cat([boxes, scores.unsqueeze(1)], 1), 0.5)
    assert [g.tolist() for g in groups] == [[0, 1], [2]]


def test_larger_offsets_in_channels_last(with_our_operators):
    # DyHead's, where the model runs in channels_last
    module, generator = (
        with_our_operators('modulated_deform_conv'),
        torch.Generator().manual_seed(0),
    )
    shapes = (2, 4, 8, 8), (2, 18, 8, 8), (2, 9, 8, 8), (6, 4, 3, 3)
    tensors = [torch.randn(shape, generator=generator).double() for shape in shapes]
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaves = [t.contiguous(memory_format=layout).detach().requires_grad_() for t in tensors]
        y = module.modulated_deform_conv2d(*leaves, None, 2, 1)
        found.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
        assert y.shape == (2, 6, 4, 4)
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize(
    'layer, arguments',
    [
        ('CARAFEPack', (8, 2)),
        ('DeformConv2dPack', (8, 4, 3)),
        ('ModulatedDeformConv2dPack', (8, 4, 3)),
    ],
)
def test_layers_train(with_our_operators, layer, arguments):
    for name in ('carafe', 'deform_conv', 'modulated_deform_conv'):
        with_our_operators(name)
    module = getattr(importlib.import_module('mmcv.ops'), layer)(*arguments)
    x = torch.randn(2, 8, 6, 7, requires_grad=True)
    module(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
