"""COCO 2017 (arXiv 1405.0312) from its official archives, as the configs read it.

::

    data/coco/annotations/instances_{train,val}2017.json
    data/coco/{train,val}2017/*.jpg
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from attnpool_backbones.datasets.completing import Finding, complete, some, whole_and_empty
from attnpool_backbones.datasets.records import COCO
from attnpool_backbones.datasets.unpacking import Archive

__all__ = ['prepare']

SITE = 'http://images.cocodataset.org'
ARCHIVES = {
    'train': Archive('train2017.zip', 'train2017', f'{SITE}/zips/train2017.zip'),
    'val': Archive('val2017.zip', 'val2017', f'{SITE}/zips/val2017.zip'),
    'annotations': Archive(
        'annotations_trainval2017.zip',
        'annotations',
        f'{SITE}/annotations/annotations_trainval2017.zip',
    ),
}


def prepare(
    downloads: Path,
    root: Path,
    images: Mapping[str, int] = COCO.images,
    classes: int = COCO.classes,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Unpacks what is not there yet or damaged and checks all of it.

    Of images only the size is looked at: none may be empty.

    Args:
        downloads: Folder with the archives; those whose folder is complete are not asked for.
        root: Where to, e.g. ``data/coco``.
        images: Expected number of images by split, ``'train'`` and ``'val'``.
        classes: Expected number of classes.
        progress: Called with the bytes unpacked and the bytes in all.

    Raises:
        UserError: Archives or files are missing, or the numbers are not as expected; the message
            names everything.
    """
    complete(
        lambda: [f for split in images for f in _findings(root, split, images[split], classes)],
        downloads,
        root,
        'the whole COCO 2017',
        progress,
    )


def _findings(root: Path, split: str, images: int, classes: int) -> list[Finding]:
    """Lists what is wrong with one split."""
    annotations, pictures = ARCHIVES['annotations'], ARCHIVES[split]
    folder = root / pictures.folder
    whole, empty = map(set, whole_and_empty(folder, '.jpg'))
    findings = []
    if empty:
        text = f'{folder} has {len(empty)} images without content: {some(empty)}'
        findings.append(Finding(text, pictures))
    there = whole | empty

    file = root / annotations.folder / f'instances_{split}2017.json'
    listed = None
    if not file.is_file():
        findings.append(Finding(f'{file} is missing', annotations))
    else:
        try:
            content = json.loads(file.read_bytes())
            names = [image['file_name'] for image in content['images']]
            listed, kinds = set(names), {category['name'] for category in content['categories']}
        except (ValueError, KeyError, TypeError) as error:
            findings.append(Finding(f'{file} is damaged: {error!r}', annotations, (file,)))
    if listed is None:
        if len(there) < images:
            findings.append(Finding(f'{folder} has {len(there)} images, not {images}', pictures))
        return findings

    if len(names) != images:
        findings.append(Finding(f'{file} lists {len(names)} images, not {images}'))
    if len(kinds) != classes:
        findings.append(Finding(f'{file} has {len(kinds)} classes, not {classes}'))
    absent, unlisted = listed - there, there - listed
    if absent:
        text = f'lacks {len(absent)} of the images that {file.name} lists: {some(absent)}'
        findings.append(Finding(f'{folder} {text}', pictures))
    if unlisted:
        text = f'has {len(unlisted)} images that {file.name} does not list: {some(unlisted)}'
        findings.append(Finding(f'{folder} {text}'))
    return findings
