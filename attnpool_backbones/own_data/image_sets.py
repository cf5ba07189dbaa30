"""Lists of images in ``ImageSets``, by which Pascal VOC tells the splits of boxes and of masks."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath

from attnpool_backbones.datasets.image_files import IMAGE_SUFFIXES
from attnpool_backbones.own_data.folder import Folder, spelt_alike

__all__ = ['leave_rest', 'note_left_out', 'read_image_sets']


def read_image_sets(
    folder: Folder, stems: Sequence[str], purpose: str, notes: list[str]
) -> dict[str, str | None]:
    """Reads split by the stem of an image.

    ``trainval`` is the other two together; what only it has is trained on, or in no split if there
    is no list ``train``. ``trainaug`` lists what is trained on besides (VOC with SBD's masks).

    Args:
        folder: The folder.
        stems: Of the images that have labels, one of each image.
        purpose: Folder of the lists in ``ImageSets``, such as ``Main``. Where it is not there, all
            lists count.
        notes: Is extended where there are lists that cannot be used.

    Returns:
        By :func:`~attnpool_backbones.own_data.folder.spelt_alike` stems. Nothing if there are no
        lists, or none names an image, or several images have one stem, so that nothing tells which
        is meant.
    """
    known = {spelt_alike(stem) for stem in stems}
    found = [PurePosixPath(file) for file in folder.with_suffix('.txt')]
    sets = [path for path in found if 'ImageSets' in path.parts]
    sets = [path for path in sets if path.parent.name == purpose] or sets
    are_parts = any(path.stem in ('train', 'trainaug') for path in sets)
    of_lists = dict(
        trainval='train' if are_parts else None,
        trainaug='train',
        train='train',
        val='val',
        test='test',
    )
    splits: dict[str, str | None] = {}
    for name, split in of_lists.items():
        for path in sets:
            lines = folder.text(path.as_posix()).splitlines() if path.stem == name else ()
            splits.update({_stem(line.strip(), known): split for line in lines if line.strip()})
    if known.isdisjoint(splits) or len(known) < len(stems):
        if splits:
            fault = 'name no image' if known.isdisjoint(splits) else 'name several images at once'
            notes.append(f'lists in ImageSets are not used: they {fault}')
        return {}
    return splits


def leave_rest(lists: Mapping[str, str | None]) -> bool:
    """Tells whether an image in no list is left out: lists of one split leave the rest for others.

    Args:
        lists: As :func:`read_image_sets` returns them.
    """
    return not {'train', None}.isdisjoint(lists.values())


def note_left_out(left: Collection[str], total: int, things: str, notes: list[str]) -> None:
    """Notes what no list has, if there is something.

    Args:
        left: Files that are left out.
        total: How many there are in all.
        things: What they are.
        notes: Is extended.
    """
    if left:
        notes.append(
            f'left out, as in no list of ImageSets: {len(left)} of {total} {things}, such as '
            f'{next(iter(left))}'
        )


def _stem(line: str, stems: Collection[str]) -> str:
    """Reads the image that a line names, which may have spaces, and a -1, 0 or 1 behind it."""
    line = spelt_alike(line)
    bare = re.sub(r'\s+(-1|0|1)$', '', line)
    for name in (line, bare):
        path = PurePosixPath(name)
        ends = path.suffix.lower() in IMAGE_SUFFIXES
        for stem in (name, path.name, path.stem if ends else name):
            if stem in stems:
                return stem
    return bare
