"""Pretraining on crops of a COCO data set."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict

from attnpool_backbones.backbones import PatchConvNet
from attnpool_backbones.datasets import digit_scenes
from attnpool_backbones.datasets.object_crops import CONTEXT, SIDE, Objects
from attnpool_backbones.experiments.crop_pretraining import (
    CropClassifier,
    accuracy,
    pretrain,
    save_backbone,
)


@pytest.fixture(scope='module')
def objects(tmp_path_factory):
    root = tmp_path_factory.mktemp('scenes')
    digit_scenes.generate(root, train=12, val=2)
    return Objects.load(root / 'annotations/instances_train.json', root / 'images/training')


def squares() -> Objects:
    """Two images with a white square each, of label 0 at the left and of label 1 at the right."""
    images = {key: np.zeros((60, 80, 3), np.uint8) for key in (1, 2)}
    images[1][20:40, 10:30] = images[2][20:40, 50:70] = 255
    boxes = [(1, (10.0, 20.0, 20.0, 20.0)), (2, (50.0, 20.0, 20.0, 20.0))]
    return Objects(images, boxes, torch.tensor([0, 1]))


def test_a_backbone_of_mmdet_is_classified_saved_and_loaded(tmp_path):
    # Its train() returns nothing and its init_weights() wants a prefix.
    from mmdet.models import SwinTransformer

    size = dict(embed_dims=8, depths=(1, 1), num_heads=(1, 2), out_indices=(0, 1))
    backbone = SwinTransformer(**size)
    assert backbone.eval() is None
    model = CropClassifier(backbone, num_classes=3)
    assert model(torch.zeros(2, 3, SIDE, SIDE)).shape == (2, 3)
    save_backbone(model, tmp_path / 'backbone.pth')
    init_cfg = ConfigDict(
        type='Pretrained', checkpoint=str(tmp_path / 'backbone.pth'), prefix='backbone.'
    )
    again = SwinTransformer(**size, init_cfg=init_cfg)
    again.init_weights()
    for name, value in backbone.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_the_data_set_is_read(objects):
    assert len(objects.images) == 12
    assert len(objects.boxes) == len(objects.labels) > 12
    assert set(objects.labels.tolist()) <= set(range(10))


def test_the_object_lies_in_the_middle_at_the_stated_scale():
    crops = squares().crops(np.array([0, 1]))
    assert crops.shape == (2, 3, SIDE, SIDE)
    for crop in crops:
        white = (crop.mean(0) > 0).float()
        rows, columns = white.amax(1).nonzero(), white.amax(0).nonzero()
        for used in (rows, columns):
            assert abs(len(used) - SIDE * 2 / sum(CONTEXT)) <= 2
            assert abs(used.float().mean() - (SIDE - 1) / 2) <= 1


def test_random_crops_vary_and_keep_the_object():
    rng = np.random.default_rng(0)
    crops = squares().crops(np.zeros(8, int), rng)
    shares = (crops.mean(1) > 0).float().mean((1, 2))
    assert shares.unique().numel() > 4
    # Between a crop filled by the object and one that is twice as wide.
    assert 0.2 < shares.min() < shares.max() <= 1.0


def test_learns_and_saves_what_init_cfg_loads(objects, tmp_path):
    arch = dict(width=16, depth=2, layer_scale_init=1.0, stride=8)
    norm_cfg = dict(type='BN')
    seen = []
    model = pretrain(
        PatchConvNet(arch=arch, norm_cfg=norm_cfg, out_indices=(1,)),
        objects,
        steps=80,
        batch=16,
        lr=1e-2,
        progress=lambda step, steps, loss: seen.append((step, steps, loss)),
    )
    losses = [loss for *_, loss in seen]
    assert [step for step, *_ in seen] == list(range(1, 81))
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:10])
    assert accuracy(model, objects) > 0.2

    path = tmp_path / 'backbone.pth'
    save_backbone(model, path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    again = PatchConvNet(arch=arch, norm_cfg=norm_cfg, out_indices=(0, 1), init_cfg=init_cfg)
    again.init_weights()
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again.eval()(image)[-1], model.backbone(image)[-1])
