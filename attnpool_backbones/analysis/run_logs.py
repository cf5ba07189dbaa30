"""What the logs of a run tell: its training and its validations, over all times it was started."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attnpool_backbones.command_line import UserError

__all__ = ['History', 'history_of', 'in_percent', 'logs_of', 'read_scalars']

IN_PERCENT = ('', 'tags', 'localisation', 'accuracy', 'coco_panoptic')
"""What stands before the names of metrics that a run tells in percent; others are shares of 1."""


@dataclass
class History:
    """A run as it is now, without what was trained and given up again.

    Attributes:
        training: What was logged of batches, by rising ``'step'``, the iteration.
        validations: What they gave, by rising ``'step'``, the epoch or the iteration.
        counts_epochs: Whether the steps of validations are epochs.
    """

    training: list[dict[str, Any]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    counts_epochs: bool = False


def logs_of(folder: Path) -> list[Path]:
    """Returns mmengine's logs of a run, one of each time it was started, the oldest first."""
    return sorted(folder.glob('*/vis_data/scalars.json'))


def read_scalars(log: Path) -> list[dict[str, Any]]:
    """Reads a log; a last line that a killed run did not finish is left out.

    Args:
        log: Of :func:`logs_of`.

    Raises:
        UserError: A line is damaged.
    """
    lines = log.read_bytes().splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            scalars = json.loads(line)
            if not isinstance(scalars, dict):
                raise ValueError('no scalars by name')
        except ValueError as error:
            if number < len(lines):
                raise UserError(f'{log}, line {number}: {error}') from error
        else:
            found.append(scalars)
    return found


def history_of(folder: Path) -> History:
    """Reads a run; where it was resumed, what came after that point before is left out.

    Args:
        folder: Of the run.

    Raises:
        UserError: There is no log of a training, or a log is damaged.
    """
    history = History()
    for log in logs_of(folder):
        entries = read_scalars(log)
        training, validations = _told_apart(entries)
        if training:
            first = training[0]
            history.counts_epochs = 'epoch' in first
            _leave_out_from(history.training, first['step'])
            _leave_out_from(history.validations, first.get('epoch', first['step']))
        if validations:
            _leave_out_from(history.validations, validations[0]['step'])
        history.training += training
        history.validations += validations
    if not history.training:
        raise UserError(f'{folder}: no log of a training (*/vis_data/scalars.json with losses)')
    return history


def _told_apart(entries: Sequence[dict[str, Any]]) -> tuple[list, list]:
    """Returns what a log tells of batches, and of validations by the epoch or iteration."""
    training: list[dict[str, Any]] = []
    validations: list[dict[str, Any]] = []
    for entry in entries:
        if 'step' not in entry:
            continue
        if 'loss' in entry:
            training.append(entry)
        elif training and 'epoch' not in training[-1]:
            # mmengine writes the epoch, which is 0 throughout, unless log_metric_by_epoch=False
            validations.append(dict(entry, step=max(entry['step'], training[-1]['step'])))
        elif entry['step']:  # else nothing tells when it was
            validations.append(entry)
    return training, validations


def in_percent(metric: str, values: Sequence[float]) -> np.ndarray:
    """Returns the values of a metric in percent.

    Args:
        metric: Its whole name, such as ``'coco/bbox_mAP'``.
        values: All that a run has, as its logs tell them.
    """
    told = np.array(values, np.float64)
    # no share is above 1: percent, under somebody's own prefix
    is_share = np.nan_to_num(told).max(initial=0) <= 1
    return 100 * told if is_share and metric.rpartition('/')[0] not in IN_PERCENT else told


def _leave_out_from(entries: list[dict[str, Any]], step: int) -> None:
    entries[:] = [each for each in entries if each['step'] < step]
