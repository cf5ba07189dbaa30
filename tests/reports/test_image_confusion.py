"""What a report tells of classified images, beside plain counts and TopAccuracy."""

import re

import numpy as np
import pytest
import torch

from attnpool_backbones.command_line import UserError
from attnpool_backbones.engine.accuracy_metric import TopAccuracy
from attnpool_backbones.reports.image_confusion import (
    DOUBTS,
    PAIRS,
    ImageConfusion,
    report_of_images,
)
from attnpool_backbones.reports.page import write_report


def drawn_samples(count, classes, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes - 1, count)  # the last one has no image
    logits = random.normal(size=(count, classes)) + 2 * np.eye(classes)[labels]
    scores = torch.softmax(torch.as_tensor(logits, dtype=torch.float32), 1)
    scores[0] = 1 / classes  # all equal: no hit
    scores[1] = torch.nan
    return [
        dict(scores=s, label=torch.tensor(k), img_path=f'{i}.png')
        for i, (s, k) in enumerate(zip(scores, labels.tolist(), strict=True))
    ]


def noted(samples, size=3, metric=None):
    metric = metric or ImageConfusion()
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        batch = dict(inputs=torch.zeros(len(part), 3, 4, 6, dtype=torch.uint8))
        metric.process(batch, part)
    assert metric.evaluate(len(samples)) == {}
    return metric


@pytest.mark.parametrize('classes', [2, 5, 12])
def test_numbers_are_plain_counts(classes):
    samples = drawn_samples(80, classes)
    names = [f'name {k}' for k in range(classes)]
    contents = report_of_images(noted(samples).images, names)
    labels = np.array([int(each['label']) for each in samples])
    scores = np.array([each['scores'].numpy() for each in samples])
    said = scores.argmax(1)
    said[:2] = [next(k for k in range(classes) if k != label) for label in labels[:2]]
    matrix = contents.numbers['confusion']
    rows = {row[0]: row[1:] for row in contents.classes}
    fifth = np.sort(scores, 1)[:, -min(5, classes)]
    for k, name in enumerate(names):
        ours, theirs = labels == k, said == k
        assert [int((ours & (said == j)).sum()) for j in range(classes)] == matrix[k].tolist()
        hits = (ours & theirs).sum()
        count, f1, recall, precision = rows[name][:4]
        assert count == ours.sum()
        assert recall == (pytest.approx(hits / ours.sum()) if ours.any() else None)
        assert precision == (pytest.approx(hits / theirs.sum()) if theirs.any() else None)
        f1s = 2 * hits / (ours.sum() + theirs.sum())
        assert f1 == (pytest.approx(f1s) if ours.any() else None)
        if classes > 10:
            own = scores[np.arange(80), labels]
            among = ours & (own >= fifth) & (np.arange(80) > 1)
            assert rows[name][4] == (pytest.approx(among.sum() / count) if count else None)
    assert len(contents.columns) == (5 if classes > 10 else 4)
    top = TopAccuracy((1, 5) if classes > 10 else (1,))
    top.process(None, samples)
    metrics = top.evaluate(80)
    told = re.findall('([0-9.]+) %', contents.summary[0])
    assert [float(share) for share in told] == pytest.approx(list(metrics.values()), abs=0.051)
    assert [row[0] for row in contents.classes][-1] == names[-1]
    f1s = [row[2] for row in contents.classes[:-1]]
    assert f1s == sorted(f1s)


def test_the_surest_mistakes_are_shown():
    samples = drawn_samples(200, 4)
    names = list('abcd')
    metric = noted(samples)
    contents = report_of_images(metric.images, names)
    wrong = [
        (float(each['scores'].max()), each['img_path'])
        for each in samples[2:]
        if each['scores'].argmax() != each['label']
    ]
    assert len(wrong) > PAIRS
    expected = [name for _, name in sorted(wrong, key=lambda e: -e[0])[:PAIRS]]
    assert [pair.path for pair in contents.pairs] == expected
    assert all(pair.labels.shape == (192, 288, 3) for pair in contents.pairs)
    assert sum(image.pixels is not None for image in metric.images) == PAIRS
    assert len(contents.numbers['mistakes']) == len(wrong) + 2
    assert contents.numbers['mistakes'][0]['image'] == expected[0]
    again = noted(samples, metric=metric)
    assert sum(image.pixels is not None for image in again.images) == PAIRS


def test_labels_that_are_changed_are_doubted():
    samples = drawn_samples(60, 4)[2:]
    for each in samples:  # a model that is right, and rather sure
        each['scores'] = torch.softmax(4.0 * torch.eye(4)[each['label']] + each['scores'], 0)
    changed = ('7.png', '30.png', '31.png')
    for each in samples:
        if each['img_path'] in changed:
            each['label'] = (each['label'] + 1) % 3
            each['scores'] = torch.softmax(7.0 * torch.eye(4)[(each['label'] + 2) % 3], 0)
    doubts = report_of_images(noted(samples).images, 'abcd').doubts
    assert {doubt.partition(':')[0] for doubt in doubts} == set(changed)
    many = drawn_samples(900, 4)
    assert len(report_of_images(noted(many).images, 'abcd').doubts) == DOUBTS


def test_data_without_names_labels_or_pixels(tmp_path):
    sample = dict(scores=torch.tensor([0.1, 0.9]), label=torch.tensor(0))
    metric = ImageConfusion()
    metric.process(dict(inputs=torch.zeros(2, 3, 8, 8)), [sample, sample])
    metric.evaluate(2)
    contents = report_of_images(metric.images, ['caf\udce9'])
    assert contents.pairs == [] and [row[0] for row in contents.classes] == ['caf?', 'class_1']
    write_report(contents, {}, 'title', tmp_path)
    assert contents.numbers['mistakes'][1]['image'] == 'image 1 of the test data'
    with pytest.raises(UserError, match='have no labels'):
        metric.process(dict(inputs=torch.zeros(1, 3, 8, 8)), [dict(scores=sample['scores'])])
