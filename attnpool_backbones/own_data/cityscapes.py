"""Masks as Cityscapes names them: ``gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png``."""

import re
from collections.abc import Iterable, Sequence

from attnpool_backbones.datasets.bit_depth import IGNORED
from attnpool_backbones.own_data.class_lists import ClassList

__all__ = ['class_list', 'without_other_pictures']

_CLASSES = {
    7: 'road', 8: 'sidewalk', 11: 'building', 12: 'wall', 13: 'fence', 17: 'pole',
    19: 'traffic light', 20: 'traffic sign', 21: 'vegetation', 22: 'terrain', 23: 'sky',
    24: 'person', 25: 'rider', 26: 'car', 27: 'truck', 28: 'bus', 31: 'train', 32: 'motorcycle',
    33: 'bicycle',
}  # fmt: skip
"""Those that are scored, by their ids; the others up to 33 are void."""
_MASK = re.compile(r'(.+_gt(?:Fine|Coarse)_)(labelIds|labelTrainIds|color|instance(?:Train)?Ids)\.')


def without_other_pictures(files: Sequence[str]) -> list[str]:
    """Leaves out colours and instances, and ids where there are those for training."""
    kinds = {file: match.groups() for file in files if (match := _MASK.match(file))}
    for_training = {start for start, kind in kinds.values() if kind == 'labelTrainIds'}
    return [
        file
        for file in files
        if file not in kinds
        or kinds[file][1] == 'labelTrainIds'
        or (kinds[file][1] == 'labelIds' and kinds[file][0] not in for_training)
    ]


def class_list(masks: Iterable[str]) -> ClassList | None:
    """Returns the classes if all masks are named so.

    Args:
        masks: Their files.
    """
    found = [_MASK.match(file) for file in masks]
    kinds = {match[2] if match else None for match in found}
    if kinds == {'labelIds'}:
        numbers = tuple(range(max(_CLASSES) + 1))
        return ClassList(tuple(_CLASSES.get(n, 'void') for n in numbers), values=numbers)
    if kinds == {'labelTrainIds'}:
        names = *_CLASSES.values(), 'void'
        return ClassList(names, values=(*range(len(_CLASSES)), IGNORED))
    return None
