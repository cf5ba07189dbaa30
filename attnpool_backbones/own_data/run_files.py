"""What the run of own data reads besides its config: its labels, in files of its folder."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.findings import Report
from attnpool_backbones.engine.work_folder_lock import claimed
from attnpool_backbones.own_data.bases import Bases
from attnpool_backbones.own_data.coco_files import write_coco_files
from attnpool_backbones.own_data.config_writing import Data
from attnpool_backbones.own_data.folder import displayed_size
from attnpool_backbones.own_data.label_map_files import lay_out
from attnpool_backbones.own_data.label_problems import BrokenLabels
from attnpool_backbones.own_data.labels import LabelledImages, LabelMaps

__all__ = ['OwnData', 'claimed_run', 'write_for_run', 'write_labels']


@dataclass(frozen=True)
class OwnData:
    """Labels that were read, and where a config finds them.

    Args:
        labels: With splits.
        places: What the config says of them.
        sizes: Width and height of each image in pixels.
        train: How many images are trained on.
    """

    labels: LabelledImages | LabelMaps
    places: Data
    sizes: Sequence[tuple[int, int]]
    train: int


def write_labels(labels: LabelledImages | LabelMaps, bases: Bases, run: Path) -> OwnData:
    """Writes what mmdet or mmseg cannot read of labels as they are.

    Args:
        labels: With splits.
        bases: Which say whether masks are learnt.
        run: Folder of the run.

    Raises:
        BrokenLabels: If there is no class.
        UserError: If masks are to be learnt and an object has none, or if the files there are of
            a training with other labels.
    """
    if isinstance(labels, LabelMaps):
        return _map_data(labels, run)
    return _object_data(labels, bases, run)


def _object_data(labels: LabelledImages, bases: Bases, run: Path) -> OwnData:
    if bases.kind.masks and not labels.has_masks:
        able = 'faster-rcnn, cascade-rcnn or retinanet'
        first = next(i for i in labels.instances() if not i.has_mask)
        raise UserError(
            f'--head {bases.head} learns masks, but there are boxes without ({first.where}); '
            f'take --head {able}'
        )
    sizes = [(image.width, image.height) for image in labels.images]
    if labels.coco_files is None:
        written = write_coco_files(labels, run / 'annotations', partial(write_for_run, run))
        files = {split: (str(file.absolute()), '') for split, file in written.items()}
    else:
        files = dict(labels.coco_files)
    counts = labels.counts()
    places = Data(
        labels.root,
        labels.classes,
        f'{labels.root.resolve().name} ({labels.format}): {len(labels.images)} images, '
        + ', '.join(f'{counts[name]} {name}' for name in labels.classes),
        files=files,
    )
    train = sum(image.split == 'train' for image in labels.images)
    return OwnData(labels, places, sizes, train)


def _map_data(labels: LabelMaps, run: Path) -> OwnData:
    if not labels.classes:
        raise BrokenLabels(labels.root, Report({}, tuple(labels.problems)))
    # also of broken labels, so that one list tells what is wrong with the images too
    layouts = lay_out(labels, run, write=partial(write_for_run, run))
    sizes = (
        [displayed_size(labels.root / pair.image, math.inf) for pair in labels.pairs]
        if labels.objects is None
        else [(image.width, image.height) for image in labels.objects]
    )
    places = Data(
        labels.root,
        labels.classes,
        f'{labels.root.resolve().name} ({labels.format}): {len(labels.pairs)} images, '
        f'{len(labels.classes)} classes',
        layouts=layouts,
        palette=labels.palette,
    )
    train = sum(pair.split == 'train' for pair in labels.pairs)
    return OwnData(labels, places, sizes, train)


def claimed_run(run: Path) -> AbstractContextManager[None]:
    """Keeps what a training reads from being written meanwhile; there is none without a folder."""
    return claimed(run) if run.is_dir() else nullcontext()


def write_for_run(run: Path, content: bytes, file: Path) -> None:
    """Writes a file that trainings in a folder read, unless one there did with other content."""
    if file.is_file() and file.read_bytes() != content and any(run.glob('*.pth')):
        raise UserError(
            f'{run} has checkpoints of a training with another {file}, which is kept: name another '
            '--work-dir, or go on with that training (attnpool train, --resume)'
        )
    write_atomically(content, file)
