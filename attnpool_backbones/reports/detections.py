"""What a detector gets wrong: classes, scores, kinds of errors, images.

Matching and numbers are hotcoco's, whose averages equal those of pycocotools. A detection is right
if it has the class of an object that no surer one has found, and overlaps it by an IoU of 0.5.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from attnpool_backbones.command_line import UserError
from attnpool_backbones.inference.drawing import draw_boxes
from attnpool_backbones.reports.contents import PAIRS, Column, Contents, Pair, Picture
from attnpool_backbones.reports.figures import bars, confusion_matrix, precision_and_recall

__all__ = ['Detected', 'report_of_detections']

DOUBTS = 20
"""Labels that are named as perhaps wrong."""
SURE = 0.5
"""Score from which on a detection that contradicts a label makes it doubtful."""
WORST_CLASSES = 10
"""Whose curves are drawn."""
ERRORS = dict(
    Cls='right place, wrong class',
    Loc='right class, wrong place',
    Both='wrong class and place',
    Dupe='found twice',
    Bkg='nothing there',
    Miss='not found',
)
"""Kinds of errors by their names in TIDE (arXiv 2008.08115)."""
COLUMNS = (
    Column('images', 'with such objects'),
    Column('objects', 'in the labels, without crowds'),
    Column('AP', 'mean of precision over recall and over IoUs from 0.5 to 0.95', percent=True),
    Column('AP50', 'the same at an IoU of 0.5', percent=True),
    Column('precision', 'detections that are right, from the score above on', percent=True),
    Column('recall', 'objects that are found, likewise', percent=True),
    Column('best score', 'threshold at which precision and recall of the class balance best (F1)'),
)


@dataclass(frozen=True)
class Detected:
    """A test of a detector.

    Args:
        truth: The labels as COCO writes them.
        results: Predictions as COCO writes them, by ``'bbox'`` and ``'segm'``, what is evaluated.
        category_ids: Of the classes, by label.
        image_ids: Of the images that were tested.
        classes: Names, by label.
    """

    truth: Mapping[str, Any]
    results: Mapping[str, Sequence[Mapping[str, Any]]]
    category_ids: Sequence[int]
    image_ids: Sequence[int]
    classes: Sequence[str]

    @cached_property
    def label_of(self) -> dict[int, int]:
        """Labels by the ids of their categories."""
        return {number: label for label, number in enumerate(self.category_ids)}


def report_of_detections(
    test: Detected, paths: Mapping[int, str], read_image: Callable[[str], np.ndarray | None]
) -> Contents:
    """Finds out what a detector gets wrong.

    Args:
        test: Labels and predictions.
        paths: Of the images that were tested, by their numbers.
        read_image: Takes the path of an image; returns H, W, 3 uint8 in blue, green, red, or None
            if it cannot be drawn.

    Returns:
        What the report tells. Classes, figures and images are by boxes, or by masks if boxes are
        not evaluated.

    Raises:
        UserError: If the labels have no object.
    """
    kinds = [kind for kind in ('bbox', 'segm') if kind in test.results]
    truths = {kind: _truth(test, kind) for kind in kinds}
    evaluated = {kind: _evaluated(test, kind, truths[kind]) for kind in kinds}
    main = evaluated[kinds[0]]
    everything = main.image_diagnostics(iou_thr=0.5, score_thr=0.0)
    found = _scored(main, everything, test)
    objects = Counter(found.objects)
    if not objects:
        raise UserError('--report: the labels of the test data have no object of the classes')
    overall = best_threshold(found.scores, found.hits, objects.total())
    shown = _evaluated(test, kinds[0], truths[kinds[0]], overall.score)
    at_score = shown.image_diagnostics(iou_thr=0.5, score_thr=SURE)
    rows = _rows(test, evaluated, found, objects, overall.score)
    confusion = _by_label(shown.confusion_matrix(iou_thr=0.5), test)
    errors = main.tide_errors()
    columns = list(COLUMNS)
    if len(kinds) == 2:
        columns.insert(4, Column('mask AP', 'as AP, of masks', percent=True))
    confused = _confused(confusion, test.classes)
    return Contents(
        summary=_summary(overall, objects.total(), confused, errors),
        columns=columns,
        classes=rows,
        pictures=[
            Picture(
                'confusion', confusion_matrix(confusion, [*test.classes, 'nothing']),
                f'A row is a class of the labels, a column what the model says at scores from '
                f'{_text(overall.score)} on; shares of the row. The last column: objects that are '
                'not found; the last row: detections where no object is, those in crowds too.',
            ),
            Picture(
                'precision_recall', _curves(main, test, rows),
                'Precision against recall at an IoU of 0.5, of the classes with the lowest AP.',
            ),
            Picture(
                'errors',
                bars(list(ERRORS.values()), [100 * errors['delta_ap'][key] for key in ERRORS],
                     'points of AP50'),
                'How much AP50 would rise if all errors of one kind were put right '
                '(TIDE, arXiv 2008.08115).',
            ),
        ],
        pairs=_pairs(shown, at_score, test, paths, read_image),
        doubts=_doubts(at_score, test),
        numbers=dict(
            score=overall.score, precision=overall.precision, recall=overall.recall,
            confusion=confusion, errors=errors['delta_ap'], images=at_score['img_summary'],
            label_errors=at_score['label_errors'],
        ),
    )  # fmt: skip


def _evaluated(test: Detected, kind: str, truth: Any, score: float = -np.inf) -> Any:
    """Evaluates the detections from a score on, beside what :func:`_truth` returns."""
    import hotcoco

    # areas of masks are those of their pixels only where there is no box, as mmdet knows, too
    unwanted = {'bbox'} if kind == 'segm' else set()
    results = [
        {key: value for key, value in each.items() if key not in unwanted}
        for each in test.results[kind]
        if each['score'] >= score
    ]
    evaluation = hotcoco.COCOeval(truth, truth.load_res(results), kind)
    params = evaluation.params
    params.cat_ids, params.img_ids = sorted(test.category_ids), list(test.image_ids)
    evaluation.params = params
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _truth(test: Detected, kind: str) -> Any:
    """Gives hotcoco what is evaluated: it refuses labels for kinds of what nobody reads."""
    import hotcoco

    truth = test.truth
    masks = ['segmentation'] if kind == 'segm' else []
    kept = ('id', 'image_id', 'category_id', 'bbox', 'area', *masks)
    labels = dict(
        images=[
            dict(
                {key: int(e[key]) for key in ('id', 'width', 'height') if key in e},
                file_name=str(e.get('file_name', '')),
            )
            for e in truth['images']
        ],
        categories=[dict(id=e['id'], name=str(e['name'])) for e in truth['categories']],
        annotations=[
            dict({key: e[key] for key in kept if key in e}, iscrowd=int(bool(e.get('iscrowd'))))
            for e in truth['annotations']
        ],
    )
    return hotcoco.COCO(labels)


@dataclass(frozen=True)
class _Scored:
    """All detections at once.

    Attributes:
        scores: N.
        hits: N bool, whether each is right.
        labels: N.
        objects: Label of each object.
        images: Labels that each image has.
    """

    scores: np.ndarray
    hits: np.ndarray
    labels: np.ndarray
    objects: list[int]
    images: list[set[int]]


def _scored(evaluation: Any, diagnostics: Mapping[str, Any], test: Detected) -> _Scored:
    numbers = list(diagnostics['dt_status'])
    detections = evaluation.coco_dt.load_anns(numbers)
    objects = evaluation.coco_gt.load_anns(list(diagnostics['gt_status']))
    images: dict[int, set[int]] = defaultdict(set)
    for each in objects:
        images[each['image_id']].add(test.label_of[each['category_id']])
    return _Scored(
        np.array([each['score'] for each in detections], np.float64),
        np.array([diagnostics['dt_status'][number] == 'tp' for number in numbers], bool),
        np.array([test.label_of[each['category_id']] for each in detections], np.int64),
        [test.label_of[each['category_id']] for each in objects],
        list(images.values()),
    )


@dataclass(frozen=True)
class Threshold:
    """A score, and what is right at it: precision and recall from 0 to 1."""

    score: float
    precision: float
    recall: float


def best_threshold(scores: np.ndarray, hits: np.ndarray, objects: int) -> Threshold:
    """Finds the score at which precision and recall balance best.

    Args:
        scores: N, of detections.
        hits: N bool, whether each is right.
        objects: How many there are to find, more than 0.

    Returns:
        The score with the highest F1, twice the right ones over detections and objects; the
        highest of several. Without a right detection: 0 and 0 at the highest score, or at 1.
    """
    order = np.argsort(-scores, kind='stable')
    sorted_scores, right = scores[order], np.cumsum(hits[order])
    if not len(order) or not right[-1]:
        return Threshold(float(sorted_scores[0]) if len(order) else 1.0, 0.0, 0.0)
    count = np.arange(1, len(order) + 1)
    f1 = 2 * right / (count + objects)
    # all of equal scores or none
    f1[:-1][sorted_scores[:-1] == sorted_scores[1:]] = -1
    best = int(f1.argmax())
    return Threshold(
        float(sorted_scores[best]), float(right[best] / count[best]), float(right[best] / objects)
    )


def _rounded_down(score: float) -> float:
    """Cuts a threshold, which nothing falls below by it."""
    return math.floor(1e4 * score) / 1e4


def _text(score: float) -> str:
    return f'{_rounded_down(score):.4f}'


def _rows(
    test: Detected, evaluated: Mapping[str, Any], found: _Scored, objects: Counter, score: float
) -> list[list[str | float | None]]:
    rows: list[list[str | float | None]] = []
    precision = {kind: _precision(each, test) for kind, each in evaluated.items()}
    main = next(iter(precision))
    for label, name in enumerate(test.classes):
        ours = found.labels == label
        shown = ours & (found.scores >= score)
        right = int(found.hits[shown].sum())
        count = objects[label]
        row: list[str | float | None] = [
            name, sum(label in image for image in found.images), count,
            _mean(precision[main][..., label]), _mean(precision[main][0, :, label]),
        ]  # fmt: skip
        row += [_mean(precision[kind][..., label]) for kind in precision if kind != main]
        row.append(right / int(shown.sum()) if shown.any() else None)
        row.append(right / count if count else None)
        best = best_threshold(found.scores[ours], found.hits[ours], count) if count else None
        row.append(_rounded_down(best.score) if best and best.recall else None)
        rows.append(row)
    return sorted(rows, key=lambda row: (row[3] is None, row[3] or 0.0))


def _precision(evaluation: Any, test: Detected) -> np.ndarray:
    """Returns precision of objects of all sizes: IoUs, recalls, classes by label."""
    places = np.argsort(np.argsort(test.category_ids))  # among the sorted ones
    return np.array(evaluation.eval['precision'])[:, :, places, 0, -1]


def _by_label(confusion: Mapping[str, Any], test: Detected) -> np.ndarray:
    """Returns a confusion matrix with the classes by label, then what is no object."""
    order = [confusion['cat_ids'].index(number) for number in test.category_ids]
    order.append(len(confusion['cat_ids']))
    return np.array(confusion['matrix'], np.int64)[np.ix_(order, order)]


def _mean(precision: np.ndarray) -> float | None:
    """Averages what is known: -1 stands for a class without objects."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _confused(matrix: np.ndarray, classes: Sequence[str]) -> list[tuple[int, str, str]]:
    """Returns how often which class is taken for which other one, the most frequent first."""
    between = matrix[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    rows, columns = np.nonzero(between)
    order = np.argsort(-between[rows, columns], kind='stable')
    return [
        (int(between[rows[i], columns[i]]), classes[rows[i]], classes[columns[i]]) for i in order
    ]


def _summary(
    overall: Threshold, objects: int, confused: Sequence[tuple[int, str, str]],
    errors: Mapping[str, Any],
) -> list[str]:  # fmt: skip
    if not overall.recall:
        return [f'None of the {objects} objects is found at an IoU of 0.5.']
    sentences = [
        f'At scores from {_text(overall.score)} on precision and recall balance best: '
        f'{100 * overall.precision:.1f} % of the detections are right, and '
        f'{100 * overall.recall:.1f} % of the {objects} objects are found '
        f'(attnpool predict --score {_text(overall.score)}).'
    ]
    worst = max(ERRORS, key=lambda key: errors['delta_ap'][key])
    points = 100 * errors['delta_ap'][worst]
    if points > 0:
        sentences.append(f'The most costly errors: {ERRORS[worst]} ({points:.1f} points of AP50).')
    if confused:
        count, truth, said = confused[0]
        sentences.append(f'Most often confused: {truth} is called {said} ({count} times).')
    return sentences


def _curves(evaluation: Any, test: Detected, rows: Sequence[Sequence[Any]]) -> Any:
    recall = np.array(evaluation.params.rec_thrs)
    precision = _precision(evaluation, test)[0]
    names = [row[0] for row in rows if row[3] is not None][:WORST_CLASSES]
    curves = {name: precision[:, test.classes.index(name)] for name in names}
    return precision_and_recall(recall, curves)


def _pairs(
    evaluation: Any, at_score: Mapping[str, Any], test: Detected, paths: Mapping[int, str],
    read_image: Callable[[str], np.ndarray | None],
) -> list[Pair]:  # fmt: skip
    def errors(number: int) -> int:
        return at_score['img_summary'][number]['fp'] + at_score['img_summary'][number]['fn']

    # a file may have more images than were tested; equal ones keep one order
    numbers = sorted(number for number in at_score['img_summary'] if number in paths)
    worst = sorted(filter(errors, numbers), key=errors, reverse=True)[:PAIRS]
    pairs = []
    for number in worst:
        image = read_image(paths[number])
        if image is None:
            continue
        truth = evaluation.coco_gt.load_anns(evaluation.coco_gt.get_ann_ids(img_ids=[number]))
        said = evaluation.coco_dt.load_anns(evaluation.coco_dt.get_ann_ids(img_ids=[number]))
        counts = at_score['img_summary'][number]
        pairs.append(
            Pair(
                paths[number],
                f'{counts["fn"]} not found, {counts["fp"]} wrong, {counts["tp"]} right',
                _drawn(image, truth, at_score['gt_status'], {'fn': 'not found'}, test),
                _drawn(image, said, at_score['dt_status'], {'fp': 'wrong'}, test),
            )
        )
    return pairs


def _drawn(
    image: np.ndarray, entries: Sequence[Mapping[str, Any]], status: Mapping[int, str],
    words: Mapping[str, str], test: Detected,
) -> np.ndarray:  # fmt: skip
    """Draws objects or detections, and says which are errors."""
    entries = [each for each in entries if each['category_id'] in test.label_of]
    entries.sort(key=lambda each: -each.get('score', 0.0))
    labels = np.array([test.label_of[each['category_id']] for each in entries], np.int64)
    boxes = np.array([each['bbox'] for each in entries], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    texts = []
    for each, label in zip(entries, labels.tolist(), strict=True):
        score = f' {each["score"]:.2f}' if 'score' in each else ''
        fault = words.get(status.get(each['id'], ''), '')
        texts.append(f'{test.classes[label]}{score}{fault and f": {fault}"}')
    return draw_boxes(image, boxes, labels, texts, len(test.classes))


def _doubts(at_score: Mapping[str, Any], test: Detected) -> list[str]:
    files = {image['id']: image['file_name'] for image in test.truth['images']}
    doubts = []
    surest = sorted(at_score['label_errors'], key=lambda each: -each['dt_score'])
    for each in surest[:DOUBTS]:
        file = files[each['image_id']]
        said = f'{each["dt_category"]} ({each["dt_score"]:.2f})'
        label = each.get('gt_category')
        doubts.append(
            f'{file}: labelled {label}, the model says {said}'
            if label
            else f'{file}: not labelled, the model says {said}'
        )
    return doubts
