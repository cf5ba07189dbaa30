"""COCO 2017 (arXiv 1405.0312) from its official archives, as the configs read it.

::

    data/coco/annotations/instances_{train,val}2017.json
    data/coco/{train,val}2017/*.jpg
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.unpacking import Archive, open_archives, unpack

__all__ = ['CLASSES', 'IMAGES', 'prepare']

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
IMAGES = {'train': 118287, 'val': 5000}
CLASSES = 80


def prepare(
    downloads: Path,
    root: Path,
    images: Mapping[str, int] = IMAGES,
    classes: int = CLASSES,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Unpacks what is not there yet and checks all of it.

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
    wanted = [archive for name, archive in ARCHIVES.items() if not _is_complete(root, name, images)]
    if wanted:
        lacking = _all_problems(root, images, classes) if root.exists() else ()
        opened = open_archives(downloads, wanted, lacking)
        try:
            unpack(opened, root, progress)
        finally:
            for archive in opened.values():
                archive.close()
    problems = _all_problems(root, images, classes)
    if problems:
        raise UserError(f'{root} is not the whole COCO 2017:\n' + '\n'.join(problems))


def _is_complete(root: Path, name: str, images: Mapping[str, int]) -> bool:
    if name == 'annotations':
        return all(_annotation_file(root, split).is_file() for split in images)
    folder = root / ARCHIVES[name].folder
    return folder.is_dir() and len(list(folder.glob('*.jpg'))) >= images[name]


def _annotation_file(root: Path, split: str) -> Path:
    return root / 'annotations' / f'instances_{split}2017.json'


def _all_problems(root: Path, images: Mapping[str, int], classes: int) -> list[str]:
    return [line for split in images for line in _problems(root, split, images[split], classes)]


def _problems(root: Path, split: str, images: int, classes: int) -> list[str]:
    """Lists what one split lacks."""
    file = _annotation_file(root, split)
    if not file.is_file():
        return [f'{file} is missing']
    try:
        content = json.loads(file.read_bytes())
        listed = [image['file_name'] for image in content['images']]
        names = [category['name'] for category in content['categories']]
    except (ValueError, KeyError, TypeError) as error:
        return [f'{file} is damaged: {error!r}']
    problems = []
    if len(listed) != images:
        problems.append(f'{file} lists {len(listed)} images, not {images}')
    if len(set(names)) != classes:
        problems.append(f'{file} has {len(set(names))} classes, not {classes}')
    folder = root / ARCHIVES[split].folder
    there = {path.name for path in folder.glob('*.jpg')}
    absent = sorted(set(listed) - there)
    if absent:
        problems.append(
            f'{folder} lacks {len(absent)} of the images that {file.name} lists: '
            f'{", ".join(absent[:5])}{" ..." if len(absent) > 5 else ""}'
        )
    unlisted = sorted(there - set(listed))
    if unlisted:
        problems.append(
            f'{folder} has {len(unlisted)} images that {file.name} does not list: '
            f'{", ".join(unlisted[:5])}{" ..." if len(unlisted) > 5 else ""}'
        )
    return problems
