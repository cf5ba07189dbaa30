"""In which format a folder's labels are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.limits import MAX_PIXELS
from attnpool_backbones.own_data import coco, cvat, labelme, masks, via, voc, yolo
from attnpool_backbones.own_data.folder import Folder
from attnpool_backbones.own_data.other_programs import advice

__all__ = ['FORMATS', 'Found', 'label_files', 'open_folder', 'recognise']

FORMATS: dict[str, ModuleType] = dict(
    coco=coco, yolo=yolo, voc=voc, labelme=labelme, via=via, cvat=cvat, masks=masks
)
"""What ``--format`` can say; each has ``NAME``, ``find`` and ``read``."""
OUTLINED = ('coco', 'yolo', 'labelme', 'via', 'cvat')
"""Formats of objects that may have outlines, of which label maps can be drawn."""
_LOOKS = """\
  coco     .json with images, annotations and categories
  yolo     a .txt for each image, in labels/ or beside it, and data.yaml or classes.txt
  voc      an .xml for each image, as labelImg and Pascal VOC write it
  labelme  a .json for each image
  via      one .json, saved or exported by the VGG Image Annotator or makesense.ai
  cvat     one .xml, exported as 'CVAT for images 1.1' or 'CVAT for video 1.1'
  masks    a .png for each image, in masks/ or annotations/, or named IMAGE_mask.png"""


@dataclass(frozen=True)
class Found:
    """A format and its label files."""

    format: str
    files: Sequence

    @property
    def example(self) -> str:
        """Words that show where the labels are."""
        first = self.files[0][1] if self.format == 'masks' else self.files[0]
        more = f' and {len(self.files) - 1} more' if len(self.files) > 1 else ''
        return f'{FORMATS[self.format].NAME}: {first}{more}'


def open_folder(path: str, cfg_options: Mapping[str, Any] | None = None) -> Folder:
    """Opens a folder with images.

    Args:
        path: As typed.
        cfg_options: Settings of the config that is to be made; ``max_pixels`` counts here too.

    Raises:
        UserError: If it is none, or has no images, or the setting is no number of pixels.
    """
    max_pixels = (cfg_options or {}).get('max_pixels') or MAX_PIXELS
    if type(max_pixels) is not int or max_pixels < 1:
        raise UserError(f'max_pixels has to be a whole number from 1 on, not {max_pixels!r}')
    root = Path(path)
    if not root.exists():
        near = root.absolute().parent
        there = sorted(p.name for p in near.iterdir() if p.is_dir()) if near.is_dir() else []
        has = f'; {near} has: {", ".join(there[:20])}' if there else ''
        raise UserError(f'{path}: no such folder{has}')
    if not root.is_dir():
        raise UserError(f'{path}: is a file; name the folder that has the images and the labels')
    folder = Folder(root, max_pixels)
    if not folder.images:
        words = f'{path}: no images in it, but {_content(folder)}'
        raise UserError('\n'.join([words, *advice(folder)]))
    return folder


def recognise(folder: Folder, wanted: str | None = None, for_masks: bool = False) -> Found:
    """Finds the labels of a folder.

    Args:
        folder: With images.
        wanted: A key of :data:`FORMATS` that is the only one to look for.
        for_masks: Whether a mask of each image is wanted (segmentation) or objects (detection).

    Raises:
        UserError: If there are no labels that fit, or of several formats.
    """
    # which of the two a folder is used for is said by the head
    able = ['masks', *OUTLINED] if for_masks else [name for name in FORMATS if name != 'masks']
    if wanted is not None and wanted not in able:
        raise UserError(
            f'--format {wanted}: {_purpose(for_masks)} is trained on {" or ".join(able)}'
        )
    if wanted == 'masks' and not label_files(folder, wanted):
        folder.label_files[wanted] = masks.find(folder, by_name=True)
    found = _find(folder, [wanted] if wanted else able)
    if for_masks and found and found[0].format == 'masks':
        # whole label maps say more than outlines of objects
        found = found[:1]
    if (
        len(found) > 1
        and found[0].format == 'coco'
        and not coco.has_objects(folder, found[0].files)
    ):
        found = found[1:]
    if len(found) > 1 and found[0].format == 'coco':
        # a project beside what was exported from it
        found = [one for one in found if one.format != 'via']
    if len(found) > 1:
        lines = [f'{folder.root} has labels of {len(found)} formats:']
        lines += [f'  {one.example}' for one in found]
        names = ' or '.join(f'--format {one.format}' for one in found)
        raise UserError('\n'.join([*lines, f'Say which one counts: {names}']))
    if found:
        return found[0]
    others = _find(folder, [name for name in FORMATS if name not in able])
    if others and not wanted:
        heads = 'retinanet, faster-rcnn or mask-rcnn' if for_masks else 'upernet or semantic-fpn'
        raise UserError(
            f'{folder.root} has labels for {_purpose(not for_masks)} ({others[0].example}), but '
            f'{_purpose(for_masks)} is asked for. These can be trained with --head {heads}'
        )
    name = FORMATS[wanted].NAME if wanted else 'known'
    words = f'{folder.root} has {len(folder.images)} images, but no {name} labels. It has '
    words += f'{_content(folder)}.'
    raise UserError('\n'.join([words, *advice(folder), f'Labels that are recognised:\n{_LOOKS}']))


def label_files(folder: Folder, name: str) -> Sequence:
    """Lists the label files of a format; a folder is searched once for each."""
    if name not in folder.label_files:
        files = FORMATS[name].find(folder)
        if name == 'masks' and not files and not _find(folder, OUTLINED):
            files = masks.find(folder, by_name=True)
        folder.label_files[name] = files
    return folder.label_files[name]


def _find(folder: Folder, names: Sequence[str]) -> list[Found]:
    found = [Found(name, label_files(folder, name)) for name in names]
    return [one for one in found if one.files]


def _purpose(for_masks: bool) -> str:
    return 'segmentation' if for_masks else 'detection'


def _content(folder: Folder) -> str:
    """Words how many files of which ending there are."""
    endings = Counter(PurePosixPath(file).suffix.lower() or 'no ending' for file in folder.files)
    words = [f'{count} {ending}' for ending, count in endings.most_common(8)]
    closed = [f'{name}, which cannot be read ({why})' for name, why in folder.closed.items()]
    return ', '.join([*(words or ['no files at all']), *closed[:8]])
