"""Pascal VOC: an XML file for each image, as in the challenges of 2007 to 2012."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from xml.etree import ElementTree

from attnpool_backbones.own_data.folder import Folder, spelt_alike, split_of_path
from attnpool_backbones.own_data.image_sets import leave_rest, note_left_out, read_image_sets
from attnpool_backbones.own_data.image_sizes import size_of
from attnpool_backbones.own_data.labels import Instance, LabelledImage, LabelledImages, problem
from attnpool_backbones.own_data.xml_files import malformed, number, parse_xml, root_tag

__all__ = ['NAME', 'find', 'read']

NAME = 'Pascal VOC'
EDGES = ('xmin', 'ymin', 'xmax', 'ymax')


def find(folder: Folder) -> list[str]:
    """Lists the label files of this format."""
    return [file for file in folder.with_suffix('.xml') if root_tag(folder, file) == 'annotation']


def read(folder: Folder, files: list[str]) -> LabelledImages:
    """Reads XML files and the lists in ``ImageSets/Main``, or if there are none in ``ImageSets``.

    Pixels count from 1 and the last one belongs to a box; where a file of the folder has a 0, all
    count from 0 and edges lie between pixels, as some tools write. ``difficult`` objects are
    neither learnt nor scored, as in the challenge.
    """
    labels = LabelledImages(folder.root, NAME, [])
    trees = {}
    for file in files:
        try:
            trees[file] = parse_xml(folder, file)
        except ValueError as error:
            labels.problems.append(problem('damaged label file', file, error))
    offset = 0 if any(_counts_from_zero(tree) for tree in trees.values()) else 1
    if not offset:
        labels.notes.append('some box starts at pixel 0: all boxes are taken to count from 0')
    stems = [*{PurePosixPath(file).stem for file in trees}]
    lists = read_image_sets(folder, stems, 'Main', labels.notes)
    are_complete = leave_rest(lists)
    left = []
    labelled = []
    for file, tree in trees.items():
        name = tree.findtext('filename') or ''
        stem = PurePosixPath(file).stem
        # tools rename images and leave the name inside as it was
        image = folder.find_image(stem, file, named=name) or folder.find_image(name, file)
        if image is None:
            labels.problems.append(
                problem(
                    'label without an image',
                    file,
                    f'no image {name or stem} in the folder{folder.unread_kind(stem)}',
                )
            )
            continue
        labelled.append(image)
        size = _size(tree, folder, image, file, labels)
        if size is None:
            continue
        instances = tuple(_objects(tree, file, offset, labels))
        listed = spelt_alike(stem)
        split = lists.get(listed, None if lists else split_of_path(image))
        if are_complete and listed not in lists:
            left.append(file)
            continue
        labels.images.append(LabelledImage(image, *size, instances, split))
    note_left_out(left, len(trees), 'files', labels.notes)
    labels.notes += folder.without_labels(labelled)
    labels.classes = tuple(sorted(labels.counts()))
    return labels


def _counts_from_zero(tree: ElementTree.Element) -> bool:
    # parts of objects have boxes too, which are not read
    places = 'object/bndbox/xmin', 'object/bndbox/ymin'
    return any(_is_zero(found) for place in places for found in tree.iterfind(place))


def _is_zero(edge: ElementTree.Element) -> bool:
    try:
        return number(edge.text) == 0
    except ValueError:
        return False  # told where boxes are read


def _size(
    tree: ElementTree.Element, folder: Any, image: str, file: str, labels: Any
) -> tuple[int, int] | None:
    try:
        size = tuple(int(number(tree.findtext(f'size/{side}'))) for side in ('width', 'height'))
        if min(size) > 0:
            return size
    except ValueError:
        pass
    return size_of(image, folder, labels)  # left out or 0, as some tools write it


def _objects(tree: ElementTree.Element, file: str, offset: int, labels: Any) -> Iterator[Instance]:
    for index, entry in enumerate(tree.iterfind('object'), 1):
        where = f'{file}, object {index}'
        name = (entry.findtext('name') or '').strip()
        if entry.find('bndbox') is None and entry.find('polygon') is not None:
            words = "an outline as MIT's LabelMe writes it; export COCO, or CVAT for images 1.1"
            labels.object_problems.append((name, problem('malformed label', where, words)))
            continue
        try:
            left, top, right, bottom = (number(entry.findtext(f'bndbox/{e}')) for e in EDGES)
        except ValueError as error:
            labels.object_problems.append((name, malformed(where, error)))
            continue
        # equal edges are a click, not an object of one pixel
        width = right - left + offset if right > left else right - left
        height = bottom - top + offset if bottom > top else bottom - top
        yield Instance(
            name=name,
            box=(left - offset, top - offset, width, height),
            where=where,
            is_crowd=(entry.findtext('difficult') or '').strip() == '1',
        )
