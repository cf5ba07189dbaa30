"""From a folder to a config that can be trained."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.findings import Report
from attnpool_backbones.datasets.verification import verify
from attnpool_backbones.launching.config import apply_options, load_config
from attnpool_backbones.own_data.anchors import Anchors, choose_anchors, octaves
from attnpool_backbones.own_data.bases import (
    Bases,
    choose_bases,
    download_weights,
    weights_at_hand,
)
from attnpool_backbones.own_data.config_writing import detection_config, segmentation_config
from attnpool_backbones.own_data.folder import Folder
from attnpool_backbones.own_data.label_problems import BrokenLabels, all_problems, note_lines
from attnpool_backbones.own_data.labels import LabelledImages, LabelMaps
from attnpool_backbones.own_data.planning import Plan, make_plan
from attnpool_backbones.own_data.reading import read_labels
from attnpool_backbones.own_data.recognition import open_folder
from attnpool_backbones.own_data.request import Request, places_of
from attnpool_backbones.own_data.run_files import OwnData, claimed_run, write_for_run, write_labels

__all__ = ['Prepared', 'plan_again', 'prepare']


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
    with claimed_run(run):
        data = write_labels(labels, bases, run)
        prepared = _configure(request, bases, data, run, target)
    notes = [*notes, *labels.notes, *prepared.notes]
    report = verify(prepared.cfg, workers=request.workers, progress=progress)
    report = replace(report, problems=all_problems(labels, report.problems))
    if report.problems:
        raise BrokenLabels(labels.root, report)
    notes += note_lines(report.notes)
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
    with claimed_run(run):
        again = _configure(request, prepared.bases, prepared.data, run, prepared.config)
    return replace(again, notes=prepared.notes, report=prepared.report)


def _configure(request: Request, bases: Bases, data: OwnData, run: Path, target: Path) -> Prepared:
    """Chooses the numbers and writes the config."""
    plan, notes = _plan(request, bases, data.sizes, data.train)
    config_text = segmentation_config
    if isinstance(data.labels, LabelledImages):
        config_text = detection_config
        anchors = _anchors(bases, plan, data)
        if anchors is not None:
            plan = replace(plan, anchors=anchors)
            count = len(anchors.scales) * len(anchors.ratios)
            notes.append(
                f'anchors chosen for the boxes: {count} a position, '
                f'sides of {", ".join(f"{side:.3g}" for side in anchors.scales)} strides, '
                f'heights of {", ".join(f"{ratio:g}" for ratio in anchors.ratios)} widths'
            )
    write_for_run(run, config_text(bases, plan, data.places, target).encode(), target)
    cfg = load_config(str(target))
    apply_options(cfg, request.cfg_options, request.folder)
    cfg.work_dir = str(run)
    return Prepared(target, cfg, bases, plan, data, notes)


def _plan(
    request: Request, bases: Bases, sizes: Sequence[tuple[int, int]], images: int
) -> tuple[Plan, list[str]]:
    weights, notes = request.weights, []
    if weights in (None, 'download'):
        at_hand, source = weights_at_hand(bases)
        if at_hand is None and weights == 'download':
            at_hand = download_weights(bases)
            notes.append(
                f'pretrained weights from {source}: their publisher says what they may be used '
                'for, the licence of this package does not cover them'
            )
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


def _anchors(bases: Bases, plan: Plan, data: OwnData) -> Anchors | None:
    """Chooses anchors for the boxes as they are after resizing."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, 'draft.py')
        draft.write_text(detection_config(bases, plan, data.places, draft), encoding='utf-8')
        cfg = load_config(str(draft))
    head = cfg.model.bbox_head if bases.head == 'retinanet' else cfg.model.rpn_head
    generator = head.anchor_generator
    per_octave = generator.get('scales_per_octave')
    scales = generator.get('scales')
    if per_octave:
        scales = octaves(generator.octave_base_scale, per_octave)
    boxes = [
        np.array(instance.box[2:]) * plan.size / max(image.width, image.height)
        for image in data.labels.images
        if image.split == 'train'
        for instance in image.instances
        if not instance.is_crowd
    ]
    usual = Anchors(tuple(scales), tuple(generator.ratios))
    table = np.array(boxes, dtype=np.float64).reshape(-1, 2)
    return choose_anchors(table, usual, generator.strides, per_octave)
