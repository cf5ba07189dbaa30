"""Image classifiers: heads, modes, and how their answers are scored."""

import pytest
import torch

from attnpool_backbones.engine import TopAccuracy
from attnpool_backbones.heads import AveragePoolingHead, ImageClassifier
from attnpool_backbones.heads.batch_mixing import BatchMixing

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


@pytest.mark.parametrize('method', ['mixup', 'cutmix'])
def test_mixed_labels_are_the_shares_of_the_images(method):
    options = dict(mixup=0.0, cutmix=0.0) | {method: 1.0}
    mixing, labels = BatchMixing(**options), torch.tensor([0, 2, 1])
    inputs = torch.eye(3)[labels][..., None, None].expand(3, 3, 20, 30)  # channel k: class k
    shares = set()
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, targets = mixing(inputs, labels, 3)
        torch.testing.assert_close(mixed.mean((2, 3)), targets)
        torch.testing.assert_close(targets.sum(1), torch.ones(3))
        assert (method == 'cutmix') == bool(((mixed == 0) | (mixed == 1)).all())
        shares.add(round(float(targets[0, 0]), 3))
    assert len(shares) > 10 and torch.equal(inputs[0, 0], torch.ones(20, 30))
    mixed, targets = BatchMixing(prob=0.0)(inputs, labels, 3)
    assert torch.equal(mixed, inputs) and torch.equal(targets, torch.eye(3)[labels])


def test_a_classifier_learns_from_mixed_batches():
    model = classifier(mixing=dict(mixup=1.0, cutmix=0.0)).eval()
    x, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    torch.manual_seed(3)
    losses = model(x, labels, mode='loss')
    torch.manual_seed(3)
    mixed, targets = model.mixing(x, labels, 3)
    logits = model(mixed)
    torch.testing.assert_close(losses['loss'], -(targets * logits.log_softmax(1)).sum(1).mean())
    assert losses['accuracy'] == 100 * (logits.argmax(1) == targets.argmax(1)).float().mean()
    answers = model(x, labels, mode='predict')  # of the images as they are
    torch.testing.assert_close(torch.stack([a['scores'] for a in answers]), model(x).softmax(1))


@pytest.mark.parametrize('options', [dict(mixup=0, cutmix=0), dict(mixup=-1), dict(prob=2)])
def test_wrong_mixing(options):
    with pytest.raises(ValueError, match='mixing needs mixup or cutmix above 0'):
        classifier(mixing=options)


def test_accuracy_counts_the_highest_scores():
    metric = TopAccuracy(topk=(1, 2, 5))
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.5, 0.1]])
    labels = [1, 1, 2, 2]
    metric.process(None, [dict(scores=s, label=n) for s, n in zip(scores, labels, strict=True)])
    # right, second, right, last; of three classes 5 says nothing
    assert metric.evaluate(4) == {'accuracy/top1': 50.0, 'accuracy/top2': 75.0}


NAN = float('nan')


@pytest.mark.parametrize(
    ('scores', 'expected'),
    [
        ([NAN, NAN, NAN, NAN], (0, 0)),
        ([0.2, 0.3, NAN, 0.5], (0, 0)),  # of the label
        ([NAN, 0.1, 0.9, 0.2], (0, 100)),
        ([0.25, 0.25, 0.25, 0.25], (0, 0)),
        ([0.0, 1.0, 0.0, 0.0], (0, 0)),  # what a softmax of float32 leaves of small ones
        ([0.1, 0.4, 0.4, 0.1], (0, 100)),
    ],
)
def test_ties_and_nan_are_no_hits(scores, expected):
    metric = TopAccuracy(topk=(1, 3))
    metric.process(None, [dict(scores=torch.tensor(scores), label=2)])
    found = metric.evaluate(1)
    assert (found['accuracy/top1'], found['accuracy/top3']) == expected


def test_average_pooling_with_batch_norm_trains_on_one_image():
    """As beside a detector, whose images of different sizes come one by one."""
    head, x = AveragePoolingHead(4, 3, norm='BN'), torch.rand(1, 4, 3, 5)
    logits = head.train()(x).logits
    torch.testing.assert_close(logits, head.eval()(x).logits)
