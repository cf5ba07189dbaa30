"""The loss with class weights is mmseg's, and knows pixels without a class."""

import pytest
import torch

from attnpool_backbones.heads import ClassWeightedCrossEntropyLoss

WEIGHTS = [0.1, 1.0, 2.0]


def test_without_ignored_pixels_it_is_that_of_mmseg() -> None:
    losses = pytest.importorskip('mmseg.models.losses')
    score, label = torch.randn(2, 3, 5, 7), torch.randint(0, 3, (2, 5, 7))
    weight = torch.rand(2, 5, 7)
    own = ClassWeightedCrossEntropyLoss(WEIGHTS, loss_weight=0.4)
    theirs = losses.CrossEntropyLoss(class_weight=WEIGHTS, loss_weight=0.4)
    for given in (None, weight):
        assert torch.equal(
            own(score, label, weight=given, ignore_index=255),
            theirs(score, label, weight=given, ignore_index=255),
        )


def test_no_weights_are_equal_weights() -> None:
    score, label = torch.randn(2, 3, 5, 7), torch.randint(0, 3, (2, 5, 7))
    equal, none = ClassWeightedCrossEntropyLoss([1.0] * 3), ClassWeightedCrossEntropyLoss()
    assert torch.equal(none(score, label), equal(score, label))
    expected = torch.nn.functional.cross_entropy(score, label)
    torch.testing.assert_close(none(score, label), expected)


def test_ignored_pixels_count_nothing() -> None:
    score, label = torch.randn(1, 3, 4, 6), torch.randint(0, 3, (1, 4, 6))
    label[..., 3:] = 255
    loss = ClassWeightedCrossEntropyLoss(WEIGHTS)
    torch.testing.assert_close(loss(score, label), loss(score[..., :3], label[..., :3]))


def test_pixels_of_no_class_alone_train() -> None:
    score = torch.randn(1, 3, 4, 6, requires_grad=True)
    loss = ClassWeightedCrossEntropyLoss(WEIGHTS)(score, torch.full((1, 4, 6), 255))
    loss.backward()
    assert loss == 0 and not score.grad.any()
