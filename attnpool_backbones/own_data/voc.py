"""Pascal VOC: an XML file for each image, as in the challenges of 2007 to 2012."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from xml.etree import ElementTree

from attnpool_backbones.own_data.folder import Folder, displayed_size, split_of_path
from attnpool_backbones.own_data.labels import Instance, LabelledImage, LabelledImages, problem
from attnpool_backbones.own_data.xml_files import malformed, number, root_tag

__all__ = ['NAME', 'find', 'read']

NAME = 'Pascal VOC'
EDGES = ('xmin', 'ymin', 'xmax', 'ymax')


def find(folder: Folder) -> list[str]:
    """Lists the label files of this format."""
    return [file for file in folder.with_suffix('.xml') if root_tag(folder, file) == 'annotation']


def read(folder: Folder, files: list[str]) -> LabelledImages:
    """Reads XML files and the lists in ``ImageSets/Main``.

    Pixels count from 1 and the last one belongs to a box; where a file of the folder has a 0, all
    count from 0 and edges lie between pixels, as some tools write. ``difficult`` objects are
    neither learnt nor scored, as in the challenge.
    """
    labels = LabelledImages(folder.root, NAME, [])
    trees = {}
    for file in files:
        try:
            trees[file] = ElementTree.fromstring(folder.path(file).read_bytes())
        except ElementTree.ParseError as error:
            labels.problems.append(problem('damaged label file', file, error))
    offset = 0 if any(_counts_from_zero(tree) for tree in trees.values()) else 1
    if not offset:
        labels.notes.append('some box starts at pixel 0: all boxes are taken to count from 0')
    lists = _image_sets(folder)
    for file, tree in trees.items():
        name = tree.findtext('filename') or ''
        stem = PurePosixPath(file).stem
        # tools rename images and leave the name inside as it was
        image = folder.find_image(stem, file) or folder.find_image(name, file)
        if image is None:
            labels.problems.append(
                problem('label without an image', file, f'no image {name or stem} in the folder')
            )
            continue
        size = _size(tree, folder, image, file, labels)
        if size is None:
            continue
        instances = tuple(_objects(tree, file, offset, labels))
        split = lists.get(stem, None if lists else split_of_path(image))
        if lists and split is None:
            labels.notes.append(f'{file}: in no list of ImageSets/Main, left out')
            continue
        labels.images.append(LabelledImage(image, *size, instances, split))
    labels.classes = tuple(sorted(labels.counts()))
    return labels


def _counts_from_zero(tree: ElementTree.Element) -> bool:
    return any((tree_edge.text or '').strip() == '0' for tree_edge in _low_edges(tree))


def _low_edges(tree: ElementTree.Element) -> Iterator[ElementTree.Element]:
    for edge in ('xmin', 'ymin'):
        yield from tree.iter(edge)


def _size(
    tree: ElementTree.Element, folder: Any, image: str, file: str, labels: Any
) -> tuple[int, int] | None:
    try:
        size = tuple(int(number(tree.findtext(f'size/{side}'))) for side in ('width', 'height'))
        if min(size) > 0:
            return size
    except ValueError:
        pass
    try:  # left out or 0, as some tools write it
        return displayed_size(folder.path(image))
    except OSError as error:
        labels.problems.append(problem('unreadable image', image, error))
        return None


def _objects(tree: ElementTree.Element, file: str, offset: int, labels: Any) -> Iterator[Instance]:
    for index, entry in enumerate(tree.iterfind('object'), 1):
        where = f'{file}, object {index}'
        try:
            left, top, right, bottom = (number(entry.findtext(f'bndbox/{e}')) for e in EDGES)
        except ValueError as error:
            labels.problems.append(malformed(where, error))
            continue
        # equal edges are a click, not an object of one pixel
        width = right - left + offset if right > left else right - left
        height = bottom - top + offset if bottom > top else bottom - top
        yield Instance(
            name=(entry.findtext('name') or '').strip(),
            box=(left - offset, top - offset, width, height),
            where=where,
            is_crowd=(entry.findtext('difficult') or '').strip() == '1',
        )


def _image_sets(folder: Folder) -> dict[str, str]:
    """Reads split by the stem of an image; ``trainval`` is the other two together."""
    splits = {}
    for file in folder.with_suffix('.txt'):
        path = PurePosixPath(file)
        if 'ImageSets' in path.parts and path.stem in ('train', 'val', 'test'):
            for line in folder.text(file).splitlines():
                if line.strip():
                    splits[PurePosixPath(line.split()[0]).stem] = path.stem
    return splits
