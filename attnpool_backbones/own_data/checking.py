"""What is wrong with objects, whichever format they came from."""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.findings import Problem
from attnpool_backbones.own_data.labels import Instance, LabelledImage, LabelledImages, problem
from attnpool_backbones.own_data.masks_of_objects import area

__all__ = ['check', 'choose_classes', 'misspelt']

OVERHANG = 1.0
"""Pixels by which a box may leave its image; tools round."""
RARE = 0.02
"""Share of the objects of a similar class up to which a class may be a slip of the pen."""
ALIKE = 0.8


def check(labels: LabelledImages, asked_classes: Sequence[str] | None) -> LabelledImages:
    """Checks boxes, names of classes and repetitions.

    Boxes below one pixel, masks of no pixel and objects that are there twice are left out,
    everything else that is wrong is a problem, unless it is of a class that is not asked for.

    Args:
        labels: As they were read.
        asked_classes: The classes that the user named, None for all.

    Returns:
        The labels without the objects that cannot be trained on, problems and notes added.

    Raises:
        UserError: If a class is asked for that no object has.
    """

    def is_asked(name: str) -> bool:
        return asked_classes is None or not name or name in asked_classes

    of_objects = [found for name, found in labels.object_problems if is_asked(name)]
    problems, left_out = [*labels.problems, *of_objects, *_repeated(labels.images)], []
    images = []
    for image in labels.images:
        kept = []
        seen = set()
        for instance in map(partial(_measured, image=image), image.instances):
            if not is_asked(instance.name):
                kept.append(instance)  # to be counted, and left out
                continue
            fault, small = _box_fault(instance, image), _size_fault(instance)
            counts = instance.run_lengths and instance.run_lengths['counts']
            identity = instance.name, instance.box, instance.polygons, counts
            if small is not None:
                left_out.append(small)
            elif fault is not None:
                problems.append(fault)
            elif not instance.name:
                problems.append(problem('object without a class', instance.where, '', image.split))
            elif identity in seen:
                left_out.append(problem('object labelled twice', instance.where, instance.name))
            else:
                kept.append(instance)
                seen.add(identity)
        images.append(replace(image, instances=tuple(kept)))
    checked = replace(labels, images=images, problems=problems)
    checked = choose_classes(checked, asked_classes)
    if asked_classes is None:
        problems += misspelt(checked)
    if left_out:
        checked.coco_files = None
    for kind, count in Counter(fault.kind for fault in left_out).items():
        cases = [f'{f.item} ({f.detail})' for f in left_out if f.kind == kind]
        more = ', ...' if count > 5 else ''
        checked.notes.append(f'{kind}, left out: {", ".join(cases[:5])}{more}')
    return checked


def _repeated(images: Sequence[LabelledImage]) -> Iterator[Problem]:
    """Yields images that are labelled twice, in one file or in two that should not share any."""
    by_file: dict[str, list[LabelledImage]] = {}
    for image in images:
        by_file.setdefault(image.file, []).append(image)
    for file, same in by_file.items():
        if len(same) > 1:
            splits = sorted({image.split or '?' for image in same})
            kind = 'image in several splits' if len(splits) > 1 else 'image listed more than once'
            places = [image.instances[0].where for image in same if image.instances]
            words = f'{len(same)} times, in {", ".join(splits)}'
            yield problem(kind, file, f'{words}: {"; ".join(places)}' if places else words)


def _measured(instance: Instance, image: LabelledImage) -> Instance:
    """Adds the area where the labels say none, as tools write 0 that do not know it."""
    if instance.area is not None and instance.area > 0:
        return instance
    return replace(instance, area=area(instance, (image.width, image.height)))


def _size_fault(instance: Instance) -> Problem | None:
    """Tells of an object that is too small to be learnt."""
    smaller = min(instance.box[2:])
    kind = None
    if smaller == 0:
        kind = 'box of no area'
    elif 0 < smaller < 1 < max(instance.box):
        kind = 'box below one pixel'
    elif smaller >= 1 and instance.area <= 0:
        kind = 'object of no pixel'
    return kind and problem(kind, instance.where, _edges(instance))


def _edges(instance: Instance) -> str:
    left, top, width, height = instance.box
    return f'x {left:g} to {left + width:g}, y {top:g} to {top + height:g}'


def _box_fault(instance: Instance, image: LabelledImage) -> Problem | None:
    left, top, width, height = instance.box
    if width < 0 or height < 0:
        return problem('box with swapped edges', instance.where, _edges(instance), image.split)
    if width < 1 or height < 1:
        words = f'{_edges(instance)}; are these shares of the image? They have to be pixels'
        return problem('box below one pixel', instance.where, words, image.split)
    right, bottom = left + width, top + height
    beyond = max(-left, -top, right - image.width, bottom - image.height)
    is_apart = min(right, bottom, image.width - left, image.height - top) <= 0
    if beyond > OVERHANG or is_apart:
        words = f'{_edges(instance)} in {image.file} of {image.width}x{image.height}'
        return problem('box outside the image', instance.where, words, image.split)
    return None


def choose_classes(labels: LabelledImages, asked: Sequence[str] | None) -> LabelledImages:
    """Leaves out the objects of classes that were not asked for, and puts classes into that order.

    Raises:
        UserError: If a class is asked for that no object has.
    """
    counts = labels.counts()
    if asked is None:
        return labels
    known = {*counts, *labels.classes, *(name for name, _ in labels.object_problems)}
    for name in asked:
        if name not in known:
            close = difflib.get_close_matches(name, counts, n=1, cutoff=0.5)
            hint = f'; did you mean {close[0]}?' if close else ''
            raise UserError(
                f'--classes: no object is of class {name!r}{hint} The labels have '
                f'{", ".join(f"{other} ({count})" for other, count in counts.most_common())}'
            )
    dropped = {name: count for name, count in counts.items() if name not in asked}
    images = [
        replace(image, instances=tuple(i for i in image.instances if i.name in asked))
        for image in labels.images
    ]
    chosen = replace(labels, images=images, classes=tuple(asked), notes=list(labels.notes))
    if dropped or tuple(asked) != labels.classes:
        chosen.coco_files = None
    if dropped:
        words = ', '.join(f'{count} of {name}' for name, count in dropped.items())
        chosen.notes.append(f'objects of other classes, left out: {words}')
    return chosen


def misspelt(labels: LabelledImages) -> Iterator[Problem]:
    """Yields rare classes whose names are nearly those of common ones, but for a number.

    Of names that differ in capitals alone the one of fewer objects is told, however rare it is;
    single letters may be meant so.
    """
    counts = labels.counts()
    for name, count in counts.items():
        common = [
            other
            for other in counts
            if (count <= RARE * counts[other] and not _differ_in_a_number(name, other))
            or (_differ_in_case(name, other) and (count, name) < (counts[other], other))
        ]
        plain = {other.lower().strip(): other for other in common}
        close = difflib.get_close_matches(name.lower().strip(), plain, n=1, cutoff=ALIKE)
        if close:
            meant = plain[close[0]]
            place = next(i.where for i in labels.instances() if i.name == name)
            yield problem(
                'class that may be misspelt',
                place,
                f'{name!r} ({count} objects), meant {meant!r} ({counts[meant]} objects)? '
                'If not, name all classes with --classes',
            )


def _differ_in_case(one: str, other: str) -> bool:
    return one != other and len(one) > 1 and one.lower() == other.lower()


def _differ_in_a_number(one: str, other: str) -> bool:
    """Whether names count: ``class_0`` and ``class_3``, a speed limit of 20 and one of 30."""
    one, other = one.lower().strip(), other.lower().strip()
    words, numbers = (
        [re.findall(kind, name) for name in (one, other)] for kind in (r'\D+', r'\d+')
    )
    return words[0] == words[1] and numbers[0] != numbers[1]
