"""The labels of a folder, read, checked and split."""

from collections.abc import Iterator
from dataclasses import replace

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.findings import Problem, Report
from attnpool_backbones.own_data import masks
from attnpool_backbones.own_data.checking import check
from attnpool_backbones.own_data.class_lists import read_class_list
from attnpool_backbones.own_data.folder import Folder
from attnpool_backbones.own_data.label_problems import BrokenLabels
from attnpool_backbones.own_data.labels import LabelledImages, LabelMaps, problem
from attnpool_backbones.own_data.objects_as_maps import as_label_maps
from attnpool_backbones.own_data.recognition import FORMATS, recognise
from attnpool_backbones.own_data.request import Request
from attnpool_backbones.own_data.splitting import choose_splits, copies_across

__all__ = ['read_labels']

_SHOWN = 10  # classes, in a note


def read_labels(
    request: Request, folder: Folder, for_masks: bool
) -> tuple[LabelledImages | LabelMaps, list[str]]:
    """Reads and checks the labels of a folder, and chooses splits.

    Args:
        request: What the user says.
        folder: Opened.
        for_masks: Whether label maps are wanted, or objects.

    Returns:
        Labels with splits, and notes.

    Raises:
        UserError: If there are none, or what the user says does not fit.
    """
    found = recognise(folder, request.format, for_masks)
    if request.ignored and found.format != 'masks':
        raise UserError(
            f'--ignore-label {" ".join(map(str, request.ignored))}: is for values of masks, but '
            f'the labels are objects ({found.example}); a segmentor ignores those of a class that '
            'is called void or ignore'
        )
    classes = read_class_list(list(request.classes)) if request.classes else None
    if found.format == 'masks':
        labels = masks.read(folder, found.files, classes, request.ignored)
    else:
        labels = FORMATS[found.format].read(folder, found.files)
        if folder.turned:
            labels.notes.append(
                f'{len(folder.turned)} photos are turned when they are loaded (EXIF), such as '
                f'{min(folder.turned)}: their labels do not tell the size, and have to be of the '
                'photo as shown, not as stored'
            )
        labels = check(labels, classes.names if classes else None)
        is_empty = not any(image.instances for image in labels.images)
        if is_empty and not labels.problems:
            raise UserError(f'{folder.root}: no labels in {found.example}: not one object')
        if for_masks:
            labels = as_label_maps(labels)
        elif not labels.problems:
            labels = _without_empty_test(labels)
            labels.notes += _crowds(labels)
    closed = [problem('folder that cannot be read', *told) for told in folder.closed.items()]
    if labels.problems:  # for which it may be the cause
        labels.problems += closed
    if isinstance(labels, LabelMaps):
        files, given = [p.image for p in labels.pairs], [p.split for p in labels.pairs]
    else:
        files, given = [i.file for i in labels.images], [i.split for i in labels.images]
    if not files or (labels.problems and len(files) < 2):
        raise BrokenLabels(folder.root, Report({}, tuple(labels.problems)))
    objects = [i.has_objects for i in labels.images] if isinstance(labels, LabelledImages) else None
    splits, words = choose_splits(
        files, given, request.val_share, request.group, request.split_seed, objects
    )
    if splits != given and isinstance(labels, LabelledImages):
        labels.coco_files = None
    labels = labels.with_splits(splits)
    if isinstance(labels, LabelledImages) and not labels.problems:
        labels.problems += _splits_without_objects(labels)
        if not labels.problems:
            labels.notes += _classes_without_objects(labels)
    if not labels.problems:
        labels.notes += copies_across(folder, files, splits)
    told = [f'{one.kind}, left out: {one.item} ({one.detail})' for one in closed]
    return labels, [found.example, f'{len(files)} images: {words}', *told]


def _without_empty_test(labels: LabelledImages) -> LabelledImages:
    """Leaves the images for testing out if no object is in them, which then cannot be scored."""
    tested = [image for image in labels.images if image.split == 'test']
    if not tested or any(image.has_objects for image in tested):
        return labels
    coco_files = labels.coco_files and {
        split: file for split, file in labels.coco_files.items() if split != 'test'
    }
    return replace(
        labels,
        images=[image for image in labels.images if image.split != 'test'],
        notes=[
            *labels.notes,
            f'images left out: {len(tested)} for testing without an object, such as '
            f'{tested[0].file}',
        ],
        coco_files=coco_files,
    )


def _crowds(labels: LabelledImages) -> Iterator[str]:
    """Tells how many objects a detector passes over; label maps are drawn of them too."""
    marked = [instance.is_crowd for instance in labels.instances()]
    if any(marked):
        yield (
            f'{sum(marked)} of {len(marked)} objects are crowds (iscrowd) or difficult: neither '
            'learnt nor scored'
        )


def _classes_without_objects(labels: LabelledImages) -> Iterator[str]:
    """Tells classes that cannot be learnt, or whose score says nothing."""
    for split, words in (('train', 'training, which cannot be learnt'), ('val', 'validation')):
        there = {
            instance.name
            for image in labels.images
            if image.split == split
            for instance in image.instances
            if not instance.is_crowd
        }
        without = [name for name in labels.classes if name not in there]
        if without:
            more = f' and {len(without) - _SHOWN} more' if len(without) > _SHOWN else ''
            names = ', '.join(without[:_SHOWN])
            yield f'{len(without)} classes without an object for {words} ({names}{more})'


def _splits_without_objects(labels: LabelledImages) -> Iterator[Problem]:
    """Tells if there is nothing to learn, or nothing to score."""
    for split, words in (('train', 'training'), ('val', 'validation')):
        images = [image for image in labels.images if image.split == split]
        if not any(image.has_objects for image in images):
            crowds = sum(len(image.instances) for image in images)
            passed = f' but {crowds} that are crowds (iscrowd) or difficult' if crowds else ''
            yield problem(
                'split without an object',
                split,
                f'not one in the images for {words} ({len(images)}, such as {images[0].file})'
                f'{passed}; training and validation need some, in images (or groups) of their own',
            )
