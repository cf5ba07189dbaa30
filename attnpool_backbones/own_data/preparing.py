"""From a folder to a config that can be trained."""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from mmengine.config import Config

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.findings import Problem, Report
from attnpool_backbones.datasets.verification import verify
from attnpool_backbones.engine.work_folder_lock import claimed
from attnpool_backbones.launching.config import apply_options, load_config
from attnpool_backbones.own_data import masks
from attnpool_backbones.own_data.anchors import Anchors, choose_anchors, octaves
from attnpool_backbones.own_data.bases import (
    Bases,
    choose_bases,
    download_weights,
    weights_at_hand,
)
from attnpool_backbones.own_data.checking import check
from attnpool_backbones.own_data.class_lists import read_class_list
from attnpool_backbones.own_data.coco_files import places_of_annotations, write_coco_files
from attnpool_backbones.own_data.config_writing import Data, detection_config, segmentation_config
from attnpool_backbones.own_data.folder import Folder, displayed_size
from attnpool_backbones.own_data.label_map_files import lay_out
from attnpool_backbones.own_data.labels import SPLITS, LabelledImages, LabelMaps, problem
from attnpool_backbones.own_data.objects_as_maps import as_label_maps
from attnpool_backbones.own_data.planning import Plan, make_plan
from attnpool_backbones.own_data.recognition import FORMATS, open_folder, recognise
from attnpool_backbones.own_data.splitting import choose_splits

__all__ = [
    'BrokenLabels',
    'OwnData',
    'Prepared',
    'Request',
    'list_problems',
    'places_of',
    'plan_again',
    'prepare',
    'read_labels',
    'require_same_folder',
]

SHOWN = 20
"""Cases of one kind that a message lists."""
CONSEQUENCES = frozenset({'no annotations', 'nothing left to train on'})
"""What verification finds where something is wrong with the labels, which is told."""


class BrokenLabels(UserError):
    """Labels that cannot be trained on; the message lists what is wrong.

    Args:
        root: The folder.
        report: Without images where they were not looked at for all that is wrong.
    """

    def __init__(self, root: Path, report: Report) -> None:
        self.report = report
        self.problems = report.problems
        super().__init__(list_problems(root, report.problems))


@dataclass(frozen=True)
class Request:
    """What a user says about own data; None: chosen here.

    Args:
        folder: With images and labels.
        backbone: Name of a backbone.
        head: Name of a detector or segmentor.
        format: Name of the labels' format.
        classes: Names, or a file with them.
        ignored: Values of mask pixels that belong to no class.
        val_share: Of the images that go to validation where the folder has no splits.
        group: Pattern of file names; images of one group stay in one split.
        split_seed: Another number gives other splits.
        work_dir: Folder of the run.
        weights: Pretrained weights, ``'none'`` for a start from scratch.
        epochs: Passes over the training images.
        batch: Images of a step.
        lr: Learning rate.
        size: Pixels of the longer side of resized images.
        freeze: Stages of the backbone that are not trained.
        workers: Processes that read images.
        cfg_options: Settings of the config to override, by dotted key; they are not written.
    """

    folder: str
    backbone: str
    head: str
    format: str | None = None
    classes: Sequence[str] | None = None
    ignored: Sequence[int] = ()
    val_share: float = 0.2
    group: str | None = None
    split_seed: int = 0
    work_dir: str | None = None
    weights: str | None = None
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    size: int | None = None
    freeze: int | None = None
    workers: int = 2
    cfg_options: dict[str, Any] | None = None


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


@dataclass(frozen=True)
class Prepared:
    """A config, and what was found and chosen on the way.

    Args:
        config: The file.
        cfg: Its content.
        bases: Backbone and head.
        plan: The numbers.
        data: What is trained on.
        notes: In words, for the user.
        report: Of the images and labels, once they are checked.
    """

    config: Path
    cfg: Config
    bases: Bases
    plan: Plan
    data: OwnData
    notes: Sequence[str]
    report: Report | None = None


def prepare(
    request: Request,
    target: Path | None = None,
    tell: Callable[[str], None] = print,
    read: tuple[LabelledImages | LabelMaps, list[str]] | None = None,
    opened: Folder | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Reads, checks and splits labels, and writes a config for them.

    Args:
        request: What the user says.
        target: File of the config. Default: the run's folder with ``.py``.
        tell: Called with lines of progress.
        read: What :func:`read_labels` gave for this request. Default: it is called here.
        opened: The request's folder, where that is not read yet. Default: it is opened here.
        progress: Called with the number of images checked and of all images.

    Raises:
        BrokenLabels: With all that is wrong, in the labels, the images and the masks.
        UserError: If the folder, the format or a choice is wrong, or the run's folder has
            checkpoints of a training with another config or other labels.
        WorkFolderInUse: If another process trains there.
    """
    bases = choose_bases(request.backbone, request.head)
    run, beside = places_of(request, bases)
    target = target or beside
    if read is None:
        opened = opened or open_folder(request.folder, request.cfg_options)
        read = read_labels(request, opened, bases.kind.segments)
    labels, notes = read
    with _claimed(run):
        data = _map_data(labels, run) if isinstance(labels, LabelMaps) else _object_data(
            labels, bases, run
        )  # fmt: skip
        prepared = _configure(request, bases, data, run, target)
    notes = [*notes, *labels.notes, *prepared.notes]
    problems = list(labels.problems)
    report = verify(prepared.cfg, workers=request.workers, progress=progress)
    known = {item.item for item in problems}
    # each ending of images is a data set of its own, which does not know the others' masks
    hidden = {'mask without an image'}
    if problems:
        hidden |= CONSEQUENCES
    problems += [
        found
        for found in _of_labels(report.problems, labels)
        if found.kind not in hidden and not _is_known(found, known)
    ]
    report = replace(report, problems=tuple(problems))
    if problems:
        raise BrokenLabels(labels.root, report)
    notes += _noted(report.notes)
    for note in notes:
        tell(note)
    return replace(prepared, notes=notes, report=report)


def plan_again(prepared: Prepared, request: Request) -> Prepared:
    """Writes the config anew where only its numbers change: epochs, batch, learning rate.

    Labels and images are those that were read and checked.

    Args:
        prepared: For the same folder, backbone and head.
        request: What is to be changed.
    """
    run, _ = places_of(request, prepared.bases)
    with _claimed(run):
        again = _configure(request, prepared.bases, prepared.data, run, prepared.config)
    return replace(again, notes=prepared.notes, report=prepared.report)


def places_of(request: Request, bases: Bases) -> tuple[Path, Path]:
    """Returns the folder of the run that a request asks for, and the config beside it."""
    name = f'{Path(request.folder).resolve().name}_{bases.head}_{bases.backbone}'
    run = Path(request.work_dir or Path('work_dirs', name))
    return run, run.parent / f'{run.name}.py'


def require_same_folder(config: Path, folder: str) -> None:
    """Makes sure that a run which is to go on was begun with the folder that is named.

    Args:
        config: Of the run.
        folder: As typed.

    Raises:
        UserError: If the data of the config is elsewhere.
    """
    root = load_config(str(config)).get('data_root')
    if root is not None and Path(root).resolve() != Path(folder).resolve():
        raise UserError(
            f'--resume: {config} trains on {root}, not on {Path(folder).resolve()}; name that '
            'folder, or another --work-dir'
        )


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
        written = write_coco_files(labels, run / 'annotations', partial(_write, run))
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


def _configure(request: Request, bases: Bases, data: OwnData, run: Path, target: Path) -> Prepared:
    """Chooses the numbers and writes the config."""
    plan, notes = _plan(request, bases, data.sizes, data.train)
    if isinstance(data.labels, LabelMaps):
        text = segmentation_config(bases, plan, data.places, target)
        cfg = _write_config(text, target, run, request)
        return Prepared(target, cfg, bases, plan, data, notes)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, 'draft.py')
        draft.write_text(detection_config(bases, plan, data.places, draft), encoding='utf-8')
        anchors = _anchors(load_config(str(draft)), bases, plan, data.labels)
    if anchors is not None:
        plan = replace(plan, anchors=anchors)
        count = len(anchors.scales) * len(anchors.ratios)
        notes.append(
            f'anchors chosen for the boxes: {count} a position, '
            f'sides of {", ".join(f"{side:.3g}" for side in anchors.scales)} strides, heights of '
            f'{", ".join(f"{ratio:g}" for ratio in anchors.ratios)} widths'
        )
    text = detection_config(bases, plan, data.places, target)
    cfg = _write_config(text, target, run, request)
    return Prepared(target, cfg, bases, plan, data, notes)


def _map_data(labels: LabelMaps, run: Path) -> OwnData:
    if not labels.classes:
        raise BrokenLabels(labels.root, Report({}, tuple(labels.problems)))
    # also of broken labels, so that one list tells what is wrong with the images too
    layouts = lay_out(labels, run, write=partial(_write, run))
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


def _plan(
    request: Request, bases: Bases, sizes: Sequence[tuple[int, int]], images: int
) -> tuple[Plan, list[str]]:
    weights, notes = request.weights, []
    if weights in (None, 'download'):
        at_hand, source = weights_at_hand(bases)
        if at_hand is None and weights == 'download':
            at_hand = download_weights(bases)
        elif at_hand is None and source is not None:
            way = (
                f'--weights download fetches {source}'
                if '://' in source
                else f'put {PurePosixPath(source).name} into checkpoints/'
            )
            notes.append(
                f'no pretrained weights at hand, so the training starts from scratch; better: {way}'
            )
        weights = at_hand
    elif weights == 'none':
        weights = None
    elif not Path(weights).is_file():
        raise UserError(f'--weights: no file {Path(weights).absolute()}')
    plan = make_plan(
        bases, sizes, images, weights, request.epochs, request.batch, request.lr, request.size,
        request.freeze,
    )  # fmt: skip
    return plan, notes


def _claimed(run: Path) -> AbstractContextManager[None]:
    """Keeps what a training reads from being written meanwhile; there is none without a folder."""
    return claimed(run) if run.is_dir() else nullcontext()


def _write(run: Path, content: bytes, file: Path) -> None:
    """Writes a file that trainings in a folder read, unless one there did with other content."""
    if file.is_file() and file.read_bytes() != content and any(run.glob('*.pth')):
        raise UserError(
            f'{run} has checkpoints of a training with another {file}, which is kept: name another '
            '--work-dir, or go on with that training (attnpool train, --resume)'
        )
    write_atomically(content, file)


def _write_config(text: str, target: Path, run: Path, request: Request) -> Config:
    _write(run, text.encode(), target)
    cfg = load_config(str(target))
    apply_options(cfg, request.cfg_options, request.folder)
    cfg.work_dir = str(run)
    return cfg


def _anchors(cfg: Config, bases: Bases, plan: Plan, labels: LabelledImages) -> Anchors | None:
    """Chooses anchors for the boxes as they are after resizing."""
    head = cfg.model.bbox_head if bases.head == 'retinanet' else cfg.model.rpn_head
    generator = head.anchor_generator
    per_octave = generator.get('scales_per_octave')
    scales = generator.get('scales')
    if per_octave:
        scales = octaves(generator.octave_base_scale, per_octave)
    boxes = [
        np.array(instance.box[2:]) * plan.size / max(image.width, image.height)
        for image in labels.images
        if image.split == 'train'
        for instance in image.instances
        if not instance.is_crowd
    ]
    usual = Anchors(tuple(scales), tuple(generator.ratios))
    table = np.array(boxes, dtype=np.float64).reshape(-1, 2)
    return choose_anchors(table, usual, generator.strides, per_octave)


def _noted(notes: Sequence[Problem]) -> list[str]:
    """Words what verification found that may be meant so, a line for each kind."""
    kinds: dict[str, list[Problem]] = {}
    for note in notes:
        kinds.setdefault(note.kind, []).append(note)
    return [
        f'{kind}: {len(cases)}, such as {cases[0].item} ({cases[0].detail})'
        for kind, cases in kinds.items()
    ]


def _of_labels(
    problems: Sequence[Problem], labels: LabelledImages | LabelMaps
) -> Iterator[Problem]:
    """Names the labels in the place of annotations of a file that was converted."""
    if not problems or isinstance(labels, LabelMaps) or labels.coco_files is not None:
        yield from problems
        return
    places = {split: places_of_annotations(labels, split) for split in SPLITS}
    for found in problems:
        yield replace(found, item=places.get(found.split, {}).get(found.item, found.item))


def _is_known(found: Problem, known: set[str]) -> bool:
    """Whether the labels told of a file already that verification stumbles over again."""
    return any(f'/{found.item}'.endswith(f'/{item}') for item in known)


def list_problems(root: Path | str, problems: Sequence[Problem], shown: int = SHOWN) -> str:
    """Words what is wrong, kind by kind, with the place of each case.

    Args:
        root: What was checked.
        problems: All that is wrong.
        shown: Cases of one kind that are listed; the others are counted.
    """
    lines = [f'{root}: {len(problems)} things are wrong with images and labels:']
    kinds: dict[str, list[Problem]] = {}
    for found in problems:
        kinds.setdefault(found.kind, []).append(found)
    for kind, cases in kinds.items():
        lines.append(f'{kind} ({len(cases)}):')
        for case in cases[:shown]:
            place = case.item if case.split == 'labels' else f'{case.split}: {case.item}'
            lines.append(f'  {place}' + (f': {case.detail}' if case.detail else ''))
        if len(cases) > shown:
            more = len(cases) - shown
            lines.append(f'  ... and {more} more; attnpool verify --json FILE lists all')
    return '\n'.join(lines)
