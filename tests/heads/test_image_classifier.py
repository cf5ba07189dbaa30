"""Image classifiers: heads, modes, and how their answers are scored."""

import pytest
import torch

from attnpool_backbones.engine import TopAccuracy
from attnpool_backbones.heads import AveragePoolingHead, ImageClassifier

BACKBONE = dict(
    type='attnpool_backbones.AttnResNet', arch=dict(depths=(1, 1), widths=(8, 16)), out_indices=-1
)


def classifier(**options):
    head = dict(type='attnpool_backbones.AveragePoolingHead', num_classes=3)
    return ImageClassifier(BACKBONE, head, **options)


@pytest.mark.parametrize('norm', ['BN', 'LN', 'none'])
def test_average_pooling_reads_the_mean(norm):
    head = AveragePoolingHead(6, 4, norm=norm).eval()
    x = torch.randn(2, 6, 5, 3)
    expected = head.classifier(head.norm(x.flatten(2).mean(2)))
    torch.testing.assert_close(head((torch.zeros(2, 1, 9, 9), x)).logits, expected)
    assert head(x).maps is None
    # constant maps have no other answer than their value
    torch.testing.assert_close(head(x.mean((2, 3), keepdim=True)).logits, expected)


def test_wrong_norm():
    with pytest.raises(ValueError, match="norm='GN' must be one of BN, LN, none"):
        AveragePoolingHead(6, 4, norm='GN')


def test_modes_agree():
    model, x, labels = classifier().eval(), torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    logits = model(x)
    assert logits.shape == (4, 3) and model.head.classifier.in_features == 64
    losses = model(x, labels, mode='loss')
    torch.testing.assert_close(losses['loss'], torch.nn.functional.cross_entropy(logits, labels))
    assert losses['accuracy'] == 100 * (logits.argmax(1) == labels).float().mean()
    answers = model(x, labels, mode='predict')
    torch.testing.assert_close(torch.stack([a['scores'] for a in answers]), logits.softmax(1))
    assert [int(a['label']) for a in answers] == labels.tolist()
    assert all(set(answer) == {'scores'} for answer in model(x, mode='predict'))
    with pytest.raises(ValueError, match="mode='test' must be one of tensor, loss, predict"):
        model(x, mode='test')


def test_label_smoothing():
    plain, smooth = classifier(), classifier(label_smoothing=0.2)
    smooth.load_state_dict(plain.state_dict())
    x, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    expected = torch.nn.functional.cross_entropy(plain.eval()(x), labels, label_smoothing=0.2)
    torch.testing.assert_close(smooth.eval()(x, labels, mode='loss')['loss'], expected)


def test_accuracy_counts_the_highest_scores():
    metric = TopAccuracy(topk=(1, 2, 5))
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.5, 0.1]])
    labels = [1, 1, 2, 2]
    metric.process(None, [dict(scores=s, label=n) for s, n in zip(scores, labels, strict=True)])
    # right, second, right, last; of three classes 5 says nothing
    assert metric.evaluate(4) == {'accuracy/top1': 50.0, 'accuracy/top2': 75.0}
