"""Checks data sets of segmentation: which files belong together, and how labels are counted."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import find_type, type_name
from attnpool_backbones.datasets.building import build_dataset, classes_of, wrong_classes
from attnpool_backbones.datasets.coco_file import encoding_fault
from attnpool_backbones.datasets.findings import Problem
from attnpool_backbones.datasets.ignored_labels import ignored_labels
from attnpool_backbones.datasets.inspection import Inspected
from attnpool_backbones.datasets.sample_reading import Labels, Sample

__all__ = ['inspect_label_maps']

NAME = 'LoadAnnotations'
"""The step that loads label maps."""


def inspect_label_maps(dataset: Mapping[str, Any], split: str, cfg: Config) -> Inspected:
    """Lists images and label maps exactly as mmseg's data set does.

    Args:
        dataset: Config of the data set.
        split: 'train', 'val' or 'test'.
        cfg: The whole config.

    Raises:
        UserError: The data set is none of mmseg's, or cannot be built.
    """
    import mmseg.datasets
    from mmseg.registry import DATASETS

    problems: list[Problem] = []

    def found(kind_of_problem: str, item: object, detail: str) -> None:
        problems.append(Problem(split, kind_of_problem, str(item), detail))

    kind = find_type(dataset, DATASETS)
    if not isinstance(kind, type) or not issubclass(kind, mmseg.datasets.BaseSegDataset):
        name = type_name(dataset) or 'the data set'
        raise UserError(f'{name} is no BaseSegDataset of mmseg, which is all this tool knows')
    classes = classes_of(kind, dataset)
    fault = wrong_classes(classes)
    if fault:
        found('classes that are no names', dataset.get('data_root') or kind.__name__, fault)
        return Inspected(problems)
    ann_file = os.path.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    if dataset.get('ann_file') and os.path.isfile(ann_file):
        fault = encoding_fault(Path(ann_file).read_bytes()[:4])
        if fault:
            found('annotation file that training cannot read', ann_file, fault)
            return Inspected(problems, classes=tuple(classes))
    built = build_dataset(dataset, DATASETS, serialize_data=False)
    shifts = bool(built.reduce_zero_label)
    transforms = list(built.pipeline.transforms)
    steps = [s for s in dataset.get('pipeline') or () if type_name(s) == NAME]
    for step in steps:
        if step.get('reduce_zero_label') not in (None, built.reduce_zero_label):
            found(
                'reduce_zero_label differs',
                type_name(dataset),
                f'{built.reduce_zero_label} in the data set, {step["reduce_zero_label"]} in '
                'LoadAnnotations',
            )
            # which refuses every label map then
            transforms = transforms[: [type_name(type(t)) for t in transforms].index(NAME)]
    infos = [built.get_data_info(index) for index in range(len(built))]
    if not infos:
        found('no images', built.data_prefix['img_path'], built.img_suffix)
    labels = None
    if steps and built.data_prefix.get('seg_map_path') is not None:
        top = max(built.label_map or range(len(classes))) + shifts
        labels = Labels(len(classes), top, ignored_labels(cfg, split))
    samples = [
        Sample(split, dict(info, sample_idx=i), transforms, labels=labels)
        for i, info in enumerate(infos)
    ]
    folder = built.data_prefix.get('seg_map_path')
    if labels is not None and folder and not built.ann_file:
        used = {os.path.normpath(info['seg_map_path']) for info in infos}
        for path in sorted(Path(folder).rglob(f'*{built.seg_map_suffix}')):
            if os.path.normpath(path) not in used:
                found('mask without an image', path, 'not used')
    return Inspected(problems, samples, tuple(classes), order=tuple(classes))
