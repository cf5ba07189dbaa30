"""The config of a training on own data: its bases, and what is its owner's."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpool_backbones.config_files import config_root
from attnpool_backbones.config_types import is_pretrained, type_name
from attnpool_backbones.own_data.anchors import Anchors
from attnpool_backbones.own_data.bases import Bases
from attnpool_backbones.own_data.label_map_files import MapLayout
from attnpool_backbones.own_data.planning import Plan

__all__ = ['Data', 'detection_config', 'segmentation_config']

WIDTH = 100


@dataclass(frozen=True)
class Data:
    """Where the data of a config is.

    Args:
        root: The folder.
        classes: Names, by label.
        summary: A line that says what it is.
        files: Annotation file and folder of images by split, for detection.
        layouts: By split, for segmentation.
        palette: Of the classes, for segmentation.
    """

    root: Path
    classes: Sequence[str]
    summary: str
    files: Mapping[str, tuple[str, str]] | None = None
    layouts: Mapping[str, Sequence[MapLayout]] | None = None
    palette: Sequence[tuple[int, int, int]] = ()


def detection_config(bases: Bases, plan: Plan, data: Data, target: Path) -> str:
    """Returns the text of a detector's config.

    Args:
        bases: Backbone and head.
        plan: The numbers.
        data: Where the data is.
        target: File that the text goes to; bases are named relative to it.
    """
    masks = ', with_mask=True' if bases.kind.masks else ''
    lines = [
        *_head(bases, data, target, 'instance'),
        f'max_epochs = {plan.epochs}',
        f'scale = ({plan.size}, {plan.size})  # pixels that an image is fitted into',
        '',
        *_model(bases, plan, len(data.classes)),
        '',
        'train_pipeline = [',
        "    dict(type='LoadImageFromFile'),",
        f"    dict(type='LoadAnnotations', with_bbox=True{masks}),",
        "    dict(type='RandomFlip', prob=0.5),",
        "    dict(type='Resize', scale=scale, keep_ratio=True),",
        "    dict(type='PackDetInputs'),",
        ']',
        'test_pipeline = [',
        "    dict(type='LoadImageFromFile'),",
        "    dict(type='Resize', scale=scale, keep_ratio=True),",
        f"    dict(type='LoadAnnotations', with_bbox=True{masks}),",
        '    dict(',
        "        type='PackDetInputs',",
        "        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),",
        '    ),',
        ']',
        *_detection_data(bases, plan, data),
        *_schedule(plan),
    ]
    return '\n'.join(lines) + '\n'


def _detection_data(bases: Bases, plan: Plan, data: Data) -> list[str]:
    prefixes = {images for _, images in data.files.values()}
    common = f'data_root=data_root, metainfo=dict(classes=classes){_one_prefix(prefixes)}'
    folders = {os.path.dirname(annotations) for annotations, _ in data.files.values()}
    lines = ['', f'data = dict({common})']
    folder = folders.pop() if len(folders) == 1 else ''
    is_apart = os.path.isabs(folder)
    if is_apart:
        lines.insert(1, f'annotations = {folder + "/"!r}')
    metric = ", metric=['bbox', 'segm']" if bases.kind.masks else ''
    for split, (annotations, images) in data.files.items():
        file = repr(annotations)
        if is_apart:
            file = f'annotations + {os.path.basename(annotations)!r}'
        prefix = f'data_prefix=dict(img={images!r}),' if len(prefixes) > 1 else ''
        lines += _loader(split, plan, [f'ann_file={file},', *([prefix] if prefix else [])])
        if split != 'train':
            where = file if is_apart else f'data_root + {file}'
            lines += [f'{split}_evaluator = dict(ann_file={where}{metric})']
    if 'test' not in data.files:
        lines += ['test_dataloader = val_dataloader', 'test_evaluator = val_evaluator']
    return [*lines, 'del data']


def _one_prefix(prefixes: set[str]) -> str:
    return f', data_prefix=dict(img={next(iter(prefixes))!r})' if len(prefixes) == 1 else ''


def _loader(split: str, plan: Plan, entries: Sequence[str]) -> list[str]:
    """Sets the loader of a split; its data set is ``data`` and what is the split's own."""
    pipeline = 'train_pipeline' if split == 'train' else 'test_pipeline'
    body = ['data,', *entries, f'pipeline={pipeline},']
    batch = f'batch_size={plan.batch}, ' if split == 'train' else ''
    line = f'{split}_dataloader = dict({batch}dataset=dict({" ".join(body)[:-1]}))'
    if len(line) <= WIDTH:
        return [line]
    return [
        f'{split}_dataloader = dict(',
        *([f'    {batch.strip()}'] if batch else []),
        '    dataset=dict(',
        *_indented(body, 8),
        '    ),',
        ')',
    ]


def segmentation_config(bases: Bases, plan: Plan, data: Data, target: Path) -> str:
    """Returns the text of a segmentor's config; arguments as for :func:`detection_config`."""
    lines = [
        *_head(bases, data, target, 'semantic'),
        *_assignment('palette', [list(colour) for colour in data.palette]),
        f'max_epochs = {plan.epochs}',
        f'scale = ({plan.size}, {plan.size})  # pixels that an image is fitted into',
        f'crop_size = {plan.crop}  # height, width',
        '',
        *_model(bases, plan, len(data.classes)),
        '',
        'train_pipeline = [',
        "    dict(type='LoadImageFromFile'),",
        "    dict(type='LoadAnnotations'),",
        "    dict(type='RandomResize', scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),",
        "    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),",
        "    dict(type='RandomFlip', prob=0.5),",
        "    dict(type='PhotoMetricDistortion'),",
        "    dict(type='PackSegInputs'),",
        ']',
        'test_pipeline = [',
        "    dict(type='LoadImageFromFile'),",
        "    dict(type='Resize', scale=scale, keep_ratio=True),",
        *_rounding(bases),
        "    dict(type='LoadAnnotations'),",
        "    dict(type='PackSegInputs'),",
        ']',
        *_segmentation_data(plan, data),
        *_schedule(plan),
    ]
    return '\n'.join(lines) + '\n'


def _rounding(bases: Bases) -> list[str]:
    """Rounds sides to the stride of a column, whose pyramid covers whole patches."""
    neck = bases.settings.get('neck')
    pyramid = neck[0] if isinstance(neck, (list, tuple)) else neck
    if type_name(pyramid) != 'ScalePyramid':
        return []
    return [f"    dict(type='ResizeToMultiple', size_divisor={pyramid.get('in_stride', 16)}),"]


def _segmentation_data(plan: Plan, data: Data) -> list[str]:
    common = 'data_root=data_root, metainfo=dict(classes=classes, palette=palette)'
    lines = ['', f'data = dict({common})']
    for split, layouts in data.layouts.items():
        pipeline = 'train_pipeline' if split == 'train' else 'test_pipeline'
        if len(layouts) == 1:
            lines += _loader(split, plan, _layout(layouts[0]))
            continue
        # mmseg's data set knows one ending of images
        lines += [f'{split}_dataloader = dict(']
        lines += [f'    batch_size={plan.batch},'] if split == 'train' else []
        lines += ['    dataset=dict(', '        _delete_=True,', "        type='ConcatDataset',"]
        lines += ['        datasets=[']
        for layout in layouts:
            entries = ["type='BaseSegDataset',", *_layout(layout), f'pipeline={pipeline},']
            lines += ['            dict(', *_indented(['data,', *entries], 16), '            ),']
        lines += ['        ],', '    ),', ')']
    if 'test' not in data.layouts:
        lines += ['test_dataloader = val_dataloader']
    return [*lines, 'del data']


def _layout(layout: MapLayout) -> list[str]:
    listing = [f'ann_file={str(layout.listing)!r},'] if layout.listing else []
    return [
        *listing,
        f'data_prefix=dict(img_path={layout.images!r}, seg_map_path={layout.label_maps!r}),',
        f'img_suffix={layout.image_suffix!r},',
        f'seg_map_suffix={layout.map_suffix!r},',
    ]


def _head(bases: Bases, data: Data, target: Path, kind: str) -> list[str]:
    files = [
        f'backbones/{bases.backbone}.py',
        f'models/{bases.model}.py',
        f'datasets/own-data_{kind}.py',
        f'schedules/own-data_{kind}.py',
    ]
    root = _reach(config_root() / '_base_', target.absolute().parent)
    return [
        *textwrap.wrap(f'# {data.summary}', WIDTH, subsequent_indent='# '),
        '_base_ = [',
        *(f'    {root + "/" + file!r},' for file in files),
        ']',
        *_assignment('classes', tuple(data.classes)),
        f'data_root = {data.root.absolute().as_posix() + "/"!r}',
    ]


def _reach(folder: Path, start: Path) -> str:
    """Names a folder relative to another, or absolutely where they have nothing in common."""
    shared = os.path.commonpath([folder, start])
    is_near = Path(shared) != Path(shared).parent
    return Path(os.path.relpath(folder, start) if is_near else folder).as_posix()


def _model(bases: Bases, plan: Plan, classes: int) -> list[str]:
    lines = [f"model = _base_.pop('under').{bases.kind.under}"]
    settings = bases.settings
    neck = settings.get('neck')
    if isinstance(neck, (list, tuple)):
        lines.append('model.neck[1].update(_base_.model.neck)')
    init = settings.backbone.get('init_cfg') or {}
    if plan.weights:
        lines.append(
            f"model.backbone.init_cfg = dict(type='Pretrained', checkpoint={plan.weights!r})"
        )
    elif is_pretrained(init):
        lines.append('model.backbone.init_cfg = None  # from scratch')
    if plan.frozen != settings.backbone.get('frozen_stages', -1):
        lines.append(f'model.backbone.frozen_stages = {plan.frozen}')
    if not plan.weights and settings.backbone.get('norm_eval'):
        lines.append('model.backbone.norm_eval = False')
    lines += _class_lines(bases, classes)
    if plan.crop is not None:
        lines.append(_setting(settings, 'data_preprocessor', 'size=crop_size'))
    if plan.anchors is not None:
        lines.append('# chosen for the sizes of the boxes')
        lines += _anchor_lines(bases, plan.anchors)
    return lines


def _setting(settings: Any, part: str, words: str) -> str:
    """Sets something of a part, which the backbone's base may say something else of."""
    return f'model.{part}.update({words})' if part in settings else f'model.{part} = dict({words})'


def _class_lines(bases: Bases, classes: int) -> list[str]:
    count = f'num_classes={classes}'
    if bases.head == 'retinanet':
        return [f'model.bbox_head = dict({count})']
    if bases.kind.segments:
        heads = [head for head in ('decode_head', 'auxiliary_head') if head in bases.settings]
        # the slim head weighs the eleven classes of the digit scenes
        weight = ', loss_decode=dict(class_weight=None)' if 'slim' in bases.model else ''
        return [_setting(bases.settings, head, count + weight) for head in heads or ['decode_head']]
    boxes = f'dict({count})'
    if 'cascade' in bases.head:
        stages = '_base_.model.roi_head.bbox_head'
        boxes = f'[dict(stage, {count}) for stage in {stages}]'
    masks = f', mask_head=dict({count})' if bases.kind.masks else ''
    line = f'model.roi_head = dict(bbox_head={boxes}{masks})'
    if len(line) <= WIDTH:
        return [line]
    return ['model.roi_head = dict(', f'    bbox_head={boxes}{masks}', ')']


def _anchor_lines(bases: Bases, anchors: Anchors) -> list[str]:
    ratios = f'ratios={list(anchors.ratios)}'
    if bases.head == 'retinanet':
        generator = f'dict(octave_base_scale={anchors.scales[0]}, {ratios})'
        return [f'model.bbox_head.anchor_generator = {generator}']
    generator = f'dict(scales={list(anchors.scales)}, {ratios})'
    return [f'model.rpn_head = dict(anchor_generator={generator})']


def _schedule(plan: Plan) -> list[str]:
    warmup = f'by_epoch=False, begin=0, end={plan.warmup}'
    return [
        '',
        f'train_cfg = dict(max_epochs=max_epochs, val_interval={plan.val_interval})',
        f'optim_wrapper = dict(optimizer=dict(lr={plan.lr}))',
        'param_scheduler = [',
        f"    dict(type='LinearLR', start_factor=0.01, {warmup}),",
        "    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, "
        'convert_to_iter_based=True),',
        ']',
    ]


def _assignment(name: str, value: Sequence[Any]) -> list[str]:
    """Assigns a list or tuple, wrapped where it is long."""
    line = f'{name} = {value!r}'
    if len(line) <= WIDTH:
        return [line]
    opening, closing = ('(', ')') if isinstance(value, tuple) else ('[', ']')
    words = ', '.join(map(repr, value)) + ','
    body = textwrap.wrap(words, WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    if isinstance(value, tuple):
        body = _wrapped([f'{entry!r},' for entry in value])
    return [f'{name} = {opening}', *_indented(body, 4), closing]


def _wrapped(entries: Sequence[str]) -> list[str]:
    """Fills lines with entries that are never cut."""
    lines = ['']
    for entry in entries:
        if lines[-1] and len(lines[-1]) + 1 + len(entry) > WIDTH - 4:
            lines.append('')
        lines[-1] += f' {entry}' if lines[-1] else entry
    return lines


def _indented(lines: Sequence[str], spaces: int) -> list[str]:
    return [' ' * spaces + line for line in lines]
