"""What a report tells of label maps, beside mmseg's own numbers."""

import numpy as np
import pytest
import torch

from attnpool_backbones.command_line import UserError
from attnpool_backbones.reports.pixel_confusion import (
    PAIRS,
    PixelConfusion,
    report_of_label_maps,
)

CLASSES = ('sky', 'road', 'tree', 'car')
PALETTE = np.array([[0, 0, 255], [90, 90, 90], [0, 255, 0], [255, 0, 0]], np.uint8)


def sample(name, truth, said):
    return dict(
        img_path=name,
        gt_sem_seg=dict(data=torch.as_tensor(truth)[None]),
        pred_sem_seg=dict(data=torch.as_tensor(said)[None]),
    )


def drawn_samples(count, seed=0):
    random = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        truth = random.integers(0, 3, (12, 16))  # no car
        said = np.where(random.random((12, 16)) < 0.7, truth, random.integers(0, 4, (12, 16)))
        truth[:2] = 255
        samples.append(sample(f'{index}.png', truth, said))
    return samples


def counted(samples, size=2):
    metric = PixelConfusion()
    metric.dataset_meta = dict(classes=CLASSES)
    for start in range(0, len(samples), size):
        metric.process(None, samples[start : start + size])
    assert metric.evaluate(len(samples)) == {}
    return metric


def read(path):
    return np.full((12, 16, 3), 128, np.uint8)


@pytest.mark.parametrize('kind', [torch.long, torch.float32])  # the second of one channel
def test_numbers_are_those_of_mmseg(kind):
    pytest.importorskip('mmseg')
    from mmseg.evaluation import IoUMetric

    samples = drawn_samples(20)
    for each in samples:
        each['pred_sem_seg']['data'] = each['pred_sem_seg']['data'].to(kind)
    theirs = IoUMetric(iou_metrics=['mIoU'])
    theirs.dataset_meta = dict(classes=CLASSES)
    theirs.process(None, samples)
    results = tuple(zip(*theirs.results, strict=True))
    areas = [sum(part).numpy() for part in results]  # intersection, union, prediction, label
    contents = report_of_label_maps(counted(samples).images, CLASSES, PALETTE, read)
    rows = {row[0]: row[1:] for row in contents.classes}
    assert list(rows)[0] == 'car'  # the worst first
    for k, name in enumerate(CLASSES):
        images, share, iou, recall, precision = rows[name]
        both, union, said, labelled = (area[k] for area in areas)
        assert iou == pytest.approx(both / union)
        assert share == pytest.approx(labelled / areas[3].sum())
        assert precision == pytest.approx(both / said)
        assert recall == (pytest.approx(both / labelled) if labelled else None)
        assert images == (20 if labelled else 0)
    right = 100 * areas[0].sum() / areas[3].sum()
    assert contents.summary[0] == f'{right:.1f} % of the labelled pixels are right.'
    assert contents.numbers['confusion'].sum() == 20 * 10 * 16


def test_only_the_worst_images_keep_their_maps():
    samples = drawn_samples(30)
    for k in (4, 21):  # nothing of these is right
        truth = samples[k]['gt_sem_seg']['data']
        samples[k]['pred_sem_seg']['data'] = torch.where(truth == 3, 2, 3)
    metric = counted(samples)
    kept = [image for image in metric.images if image.labels is not None]
    assert len(kept) == PAIRS
    assert max(e.iou for e in kept) <= min(e.iou for e in metric.images if e.labels is None)
    contents = report_of_label_maps(metric.images, CLASSES, PALETTE, read)
    assert len(contents.pairs) == PAIRS
    assert {pair.path for pair in contents.pairs[:2]} == {'4.png', '21.png'}
    assert contents.pairs[0].words == 'mean IoU 0.0 %'
    metric.process(None, samples[:3])  # another evaluation by the same metric
    metric.evaluate(3)
    assert len(metric.images) == 3 and all(e.labels is not None for e in metric.images)


def test_what_is_confused():
    truth = np.zeros((10, 10), int)
    truth[5:] = 1
    said = truth.copy()
    said[5] = 3  # a fifth of the road
    said[0, :5] = 2  # a tenth of the sky
    contents = report_of_label_maps(
        counted([sample('a.png', truth, said)]).images, CLASSES, PALETTE, read
    )
    assert contents.summary[1] == (
        'Most often confused: 20.0 % of the pixels of road are taken for car.'
    )


def test_a_perfect_model_and_images_of_another_size():
    truth = np.zeros((12, 16), int)
    images = counted([sample('a.png', truth, truth)]).images
    contents = report_of_label_maps(images, CLASSES, PALETTE, read)
    assert contents.summary == ['100.0 % of the labelled pixels are right.']
    assert not contents.pairs
    images = counted([sample('a.png', truth, truth + 1)]).images
    assert report_of_label_maps(images, CLASSES, PALETTE, read).pairs
    small = np.zeros((4, 4, 3), np.uint8)  # the pipeline's loader makes another size
    assert not report_of_label_maps(images, CLASSES, PALETTE, lambda path: small).pairs


def test_data_without_labels():
    unlabelled = sample('a.png', np.zeros((2, 2), int), np.zeros((2, 2), int))
    del unlabelled['gt_sem_seg']
    with pytest.raises(UserError, match='--report: the test data have no labels'):
        counted([unlabelled])


@pytest.mark.parametrize('rest', [0, 5])
def test_of_equally_bad_images_those_that_are_shown_have_their_maps(rest):
    truth = np.zeros((12, 16), int)
    samples = [sample(f'{k:02d}.png', truth, truth + 1) for k in range(2 * PAIRS)]
    samples += [sample(f'better {k}.png', truth, np.triu(truth + 1)) for k in range(rest)]
    contents = report_of_label_maps(counted(samples[::-1]).images, CLASSES, PALETTE, read)
    assert len(contents.pairs) == PAIRS
    assert not any('better' in pair.path for pair in contents.pairs)
