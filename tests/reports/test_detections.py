"""What a report tells of detections, beside other computations of the same."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('hotcoco')
pytest.importorskip('pycocotools')

from attnpool_backbones.command_line import UserError
from attnpool_backbones.reports.detections import Detected, best_threshold, report_of_detections

CLASSES = ('dog', 'cat', 'bird')
NUMBERS = (9, 2, 5)  # not in the order of the labels, as in files of other people
SHAPE = (60, 80)


def entry(number, image, label, box):
    x, y, width, height = box
    return dict(
        id=number, image_id=image, category_id=NUMBERS[label], bbox=list(box), area=width * height,
        segmentation=[[x, y, x + width, y, x + width, y + height, x, y + height]], iscrowd=0,
    )  # fmt: skip


def a_test(objects, detections, kinds=('bbox',), images=(1, 2, 3)):
    """Returns a test of what (image, label, box) are labelled and (..., score) found."""
    annotations = [entry(k + 1, *each) for k, each in enumerate(objects)]
    truth = dict(
        images=[dict(id=k, file_name=f'{k}.jpg', height=60, width=80) for k in images],
        categories=[dict(id=n, name=c) for n, c in zip(NUMBERS, CLASSES, strict=True)],
        annotations=annotations,
    )
    results = [
        dict(image_id=i, category_id=NUMBERS[label], bbox=list(box), score=score)
        for i, label, box, score in detections
    ]
    by_kind = dict(
        bbox=results, segm=[dict(each, segmentation=_run_lengths(each)) for each in results]
    )
    return Detected(truth, {kind: by_kind[kind] for kind in kinds}, NUMBERS, images, CLASSES)


def _run_lengths(result):
    from pycocotools import mask

    x, y, width, height = map(round, result['bbox'])
    pixels = np.zeros(SHAPE, np.uint8, order='F')
    pixels[y : y + height, x : x + width] = 1
    lengths = mask.encode(pixels)
    return dict(size=lengths['size'], counts=lengths['counts'].decode())


def read(path):
    return np.full((*SHAPE, 3), 128, np.uint8)


def reported(test, read=read):
    paths = {number: f'photos/{number}.jpg' for number in test.image_ids}
    return report_of_detections(test, paths, read)


def rows_of(contents):
    titles = [column.title for column in contents.columns]
    return {row[0]: SimpleNamespace(**{
        title.replace(' ', '_'): value for title, value in zip(titles, row[1:], strict=True)
    }) for row in contents.classes}  # fmt: skip


SEVERAL = [
    (1, 0, (5, 5, 20, 20)), (1, 1, (40, 10, 20, 20)), (2, 0, (10, 10, 30, 30)),
    (2, 1, (50, 30, 10, 10)), (3, 1, (5, 5, 10, 40)),
]  # fmt: skip
FOUND = [
    (1, 0, (5, 5, 20, 20), 0.9),  # right
    (1, 0, (40, 10, 20, 20), 0.8),  # a cat called a dog
    (2, 0, (11, 10, 30, 30), 0.7),  # right
    (2, 1, (50, 30, 10, 10), 0.6),  # right
    (3, 1, (60, 5, 10, 40), 0.2),  # nothing there
]


def test_each_number_by_hand():
    contents = reported(a_test(SEVERAL, FOUND))
    rows = rows_of(contents)
    dog, cat, bird = rows['dog'], rows['cat'], rows['bird']
    assert contents.numbers['score'] == pytest.approx(0.6)
    assert (dog.images, dog.objects, dog.precision, dog.recall) == (2, 2, 2 / 3, 1)
    assert (cat.images, cat.objects, cat.precision, cat.recall) == (3, 3, 1, 1 / 3)
    assert dog.best_score == pytest.approx(0.7) and cat.best_score == pytest.approx(0.6)
    assert (bird.images, bird.objects) == (0, 0)
    assert bird.AP is bird.precision is bird.recall is bird.best_score is None
    expected = np.zeros((4, 4), int)
    expected[0, 0], expected[1, 1], expected[1, 0], expected[1, 3] = 2, 1, 1, 1
    assert contents.numbers['confusion'].tolist() == expected.tolist()
    assert [row[0] for row in contents.classes] == ['cat', 'dog', 'bird']
    assert [pair.path for pair in contents.pairs] == ['photos/1.jpg', 'photos/3.jpg']
    assert contents.pairs[0].words == '1 not found, 1 wrong, 1 right'
    assert contents.pairs[1].words == '1 not found, 0 wrong, 0 right'
    assert contents.doubts == ['1.jpg: labelled cat, the model says dog (0.80)']
    first, *_, last = contents.summary
    assert '75.0 % of the detections are right, and 60.0 % of the 5 objects' in first
    assert '--score 0.6000' in first and last == (
        'Most often confused: cat is called dog (1 times).'
    )


@pytest.mark.parametrize('kinds', [('bbox',), ('segm',), ('bbox', 'segm')], ids='-'.join)
def test_averages_are_those_of_pycocotools(kinds):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    random = np.random.default_rng(3)
    objects, detections = [], []
    for image in range(1, 13):
        for _ in range(4):
            label = int(random.integers(3))
            box = (*random.integers(0, 30, 2).tolist(), *random.integers(6, 28, 2).tolist())
            objects.append((image, label, box))
            moved = (*(np.array(box) + random.integers(0, 5, 4)).tolist(),)
            said = label if random.random() < 0.8 else int(random.integers(3))
            detections.append((image, said, moved, float(random.random())))
    test = a_test(objects, detections, kinds, images=tuple(range(1, 13)))
    contents = reported(test)
    rows = rows_of(contents)
    titles = dict(zip(kinds, ('AP', 'mask_AP')[: len(kinds)], strict=True))
    for kind, title in titles.items():
        truth = COCO()
        truth.dataset = test.truth
        truth.createIndex()
        results = [dict(each) for each in test.results[kind]]
        if kind == 'segm':
            for each in results:
                each.pop('bbox')
        theirs = COCOeval(truth, truth.loadRes(results), kind)
        theirs.params.catIds = list(NUMBERS)
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
        for name, number in zip(CLASSES, NUMBERS, strict=True):
            k = sorted(NUMBERS).index(number)
            precision = theirs.eval['precision'][:, :, k, 0, -1]
            assert getattr(rows[name], title) == pytest.approx(precision.mean(), abs=1e-9)
            if title == 'AP':
                assert rows[name].AP50 == pytest.approx(precision[0].mean(), abs=1e-9)
        mean = np.mean([getattr(row, title) for row in rows.values()])
        assert mean == pytest.approx(theirs.stats[0], abs=1e-9)
    assert len(contents.pairs) == 12


def test_crowds_and_other_categories_do_not_count():
    test = a_test(SEVERAL, [*FOUND, (3, 2, (0, 0, 70, 50), 0.95)])
    test.truth['annotations'][-1]['iscrowd'] = 1
    test.truth['annotations'][-1]['segmentation'] = dict(size=SHAPE, counts=[305, 2400, 2095])
    test.truth['annotations'].append(dict(test.truth['annotations'][0], id=99, category_id=77))
    test.truth['categories'].append(dict(id=77, name='of no class'))
    rows = rows_of(reported(test))
    assert (rows['cat'].objects, rows['dog'].objects, set(rows)) == (2, 2, set(CLASSES))


def test_nothing_found():
    for detections in ([], [(1, 0, (60, 40, 10, 10), 0.9)]):
        contents = reported(a_test(SEVERAL, detections))
        assert contents.summary == ['None of the 5 objects is found at an IoU of 0.5.']
        assert rows_of(contents)['dog'].recall == 0
        assert len(contents.pairs) == 3


def test_data_without_objects_and_images_that_are_no_pictures():
    with pytest.raises(UserError, match='have no object of the classes'):
        reported(a_test([], FOUND))
    assert not reported(a_test(SEVERAL, FOUND), lambda path: None).pairs


@pytest.mark.parametrize('seed', range(5))
def test_the_best_threshold_is_that_of_all_thresholds(seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 12, 40) / 11  # many are equal
    hits, objects = random.random(40) < scores, 30
    best = best_threshold(scores, hits, objects)
    balance = {}
    for score in np.unique(scores):
        shown = scores >= score
        balance[score] = 2 * hits[shown].sum() / (shown.sum() + objects)
    assert balance[best.score] == max(balance.values())
    shown = scores >= best.score
    assert best.precision == hits[shown].mean()
    assert best.recall == hits[shown].sum() / objects


def test_what_is_not_evaluated_may_be_of_any_kind():
    """Datumaro and others write dates as numbers, licences as texts and the like."""
    test = a_test(SEVERAL, FOUND)
    for image in test.truth['images']:
        image.update(date_captured=0, license='1', width=float(image['width']))
    for category in test.truth['categories']:
        category['supercategory'] = 1
    for annotation in test.truth['annotations']:
        annotation.update(iscrowd=None, segmentation='none', score='high', is_group_of='no')
    strange, plain = reported(test), reported(a_test(SEVERAL, FOUND))
    assert strange.classes == plain.classes and strange.doubts == plain.doubts


def test_a_file_with_more_images_than_were_tested():
    test = a_test(SEVERAL, FOUND)
    contents = report_of_detections(test, {3: 'photos/3.jpg'}, read)
    assert [pair.path for pair in contents.pairs] == ['photos/3.jpg']


@pytest.mark.parametrize('score', [0.99996, 0.30608, 0.5])
def test_the_score_that_is_told_leaves_nothing_out(score):
    found = [(image, label, box, score) for image, label, box, _ in FOUND[:4]]
    contents = reported(a_test(SEVERAL, found))
    told = float(contents.summary[0].rpartition('--score ')[2].removesuffix(').'))
    assert score - 1e-4 < told <= score
    assert rows_of(contents)['dog'].best_score == told
