"""The probe on maps whose answer is known."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.nn import functional

from attnpool_backbones.experiments import pooling_probe
from attnpool_backbones.experiments.pooling_probe import (
    LabelledMaps,
    collect_maps,
    evaluate_probe,
    train_probe,
)


def planted_maps(num_images, seed, channels=12, num_classes=3, side=6):
    """Noise, with one strong channel at one position for each class that an image has."""
    generator = torch.Generator().manual_seed(seed)
    maps = 0.3 * torch.randn(num_images, channels, side, side, generator=generator)
    labels = torch.zeros(num_images, num_classes)
    samples = []
    for i in range(num_images):
        present = torch.randperm(num_classes, generator=generator)[: 1 + i % 2]
        where = torch.randperm(side * side, generator=generator)[: len(present)]
        labels[i, present] = 1
        ys, xs = where // side, where % side
        maps[i, present, ys, xs] += 4
        boxes = torch.stack([xs, ys, xs + 1, ys + 1], dim=1).float() * 8
        samples.append(dict(gt_instances=dict(labels=present, bboxes=boxes)))
    return LabelledMaps(maps, labels, samples, stride=8)


@pytest.mark.parametrize(
    'pooling', [None, dict(type='attnpool_backbones.AveragePoolingHead', mlp_ratio=0.25)]
)
def test_heads_learn_what_and_where(pooling):
    head = train_probe(planted_maps(256, seed=0), pooling, epochs=30, lr=3e-2)
    assert not head.training
    measured = evaluate_probe(head, planted_maps(64, seed=1))
    assert measured['tags/mAP'] > 70  # 50 by chance
    assert measured['localisation/pointing'] > 40
    assert measured['localisation/pointing_chance'] == pytest.approx(100 / 36)


def test_training_is_reproducible():
    maps = planted_maps(40, seed=0)
    torch.manual_seed(1)
    first = train_probe(maps, epochs=2)
    torch.manual_seed(2)
    second = train_probe(maps, epochs=2)
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_maps_and_labels_come_to_the_cpu_where_heads_learn(device, monkeypatch):
    class Backbone:
        out_strides = (8, 16)

        def __call__(self, images):
            return images, functional.avg_pool2d(images, 2)

    detector = SimpleNamespace(
        eval=lambda: None, backbone=Backbone(), data_preprocessor=lambda batch, training: batch
    )
    monkeypatch.setattr(
        pooling_probe, 'true_tags', lambda sample, count: torch.zeros(count, device=device)
    )
    # tensors without values, of a device that need not be there
    with FakeTensorMode():
        batch = dict(inputs=torch.zeros(2, 3, 8, 8, device=device), data_samples=[{}] * 2)
        found = collect_maps(detector, [batch, batch], num_classes=5)
    assert found.maps.shape == (4, 3, 4, 4) and found.labels.shape == (4, 5)
    assert found.maps.device.type == found.labels.device.type == 'cpu'
    assert found.labels.dtype == torch.float32 and found.stride == 16
