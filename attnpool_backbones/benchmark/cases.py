"""What a benchmark measures: cases, and the jobs that measure several of them side by side."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

TASKS = ('forward', 'train')
LAYOUTS = ('contiguous', 'channels_last')
OTHERS = ('mmcv.', 'predict.')
"""Beginnings of models that are operators or commands."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model under one condition."""

    model: str
    """``TYPE:ARCH`` of a backbone of this package (``DeepViT:16b``), a name of
    :data:`attnpool_backbones.benchmark.models.REFERENCES`, or a config file of a detector
    or segmentor, or ``mmcv.NAME``, an operator of :mod:`attnpool_backbones.benchmark.operators`, or
    ``predict.NAME``, a command (:mod:`attnpool_backbones.benchmark.prediction`)."""
    form: str = 'ours'
    """``'ours'``; ``'plain'``: by the formulas, stored and unfused; ``'compiled'``: an operator of
    mmcv's own; else another's code for the same model, see
    :mod:`attnpool_backbones.benchmark.peers`."""
    task: str = 'forward'
    """``'forward'`` (eval mode, no gradients) or ``'train'`` (forward and backward pass; of a
    detector or segmentor with its losses); ``'backward'`` alone, of an operator."""
    size: tuple[int, int] = (512, 512)
    """Height and width of the images, in pixels."""
    batch: int = 1
    dtype: str = 'float32'
    """``'float32'``, or ``'bfloat16'`` for autocast."""
    layout: str = 'contiguous'
    """Of images and weights in memory: ``'contiguous'`` or, as after a user's
    ``.to(memory_format=torch.channels_last)``, ``'channels_last'``."""
    compiled: bool = False
    """Whether the backbone goes through ``torch.compile``."""
    with_cp: bool = False
    """Activation checkpointing of the backbone."""
    norm_eval: bool = True
    """Whether BatchNorm statistics are fixed in training, as is usual in dense training."""

    @property
    def is_network(self) -> bool:
        """Whether it is a backbone, a detector or a segmentor, and nothing else."""
        return not self.model.startswith(OTHERS)

    def label(self) -> str:
        """Returns a short description: all that is not the default."""
        return ' '.join([self.model, self.form, self.task, conditions(asdict(self))])

    @staticmethod
    def from_dict(values: dict) -> 'Case':
        """Undoes ``dataclasses.asdict``, also after JSON."""
        return Case(**{**values, 'size': tuple(values['size'])})


def conditions(case: Mapping[str, Any]) -> str:
    """Returns the size of a case and what else is not the default.

    Args:
        case: Its fields, or a result of it.
    """
    return ' '.join([size_text(case['size']), *unusual(case)])


def size_text(size: tuple[int, int]) -> str:
    """Returns ``HEIGHTxWIDTH``."""
    return 'x'.join(map(str, size))


def unusual(case: Mapping[str, Any]) -> list[str]:
    """Names the conditions of a case that are not the default, but for its size.

    Args:
        case: Its fields, or a result of it.
    """
    words = [f'batch {case["batch"]}'] * (case['batch'] > 1)
    words += [case['dtype']] * (case['dtype'] != 'float32')
    words += [case['layout']] * (case['layout'] != 'contiguous')
    words += ['compiled'] * case['compiled'] + ['with_cp'] * case['with_cp']
    return words + ['live norms'] * (not case['norm_eval'])


@dataclass(frozen=True, kw_only=True)
class Job:
    """Cases that are measured together: interleaved, in one process, so that ratios hold."""

    name: str
    quantity: str
    """``'time'``, or ``'memory'`` (each case in a process of its own)."""
    cases: tuple[Case, ...]

    def key(self) -> str:
        """Returns what tells a finished job from one with other conditions."""
        return ' | '.join([self.quantity, self.name, *(str(asdict(case)) for case in self.cases)])


def time_job(name: str, cases: Iterable[Case]) -> Job:
    """Returns a job that measures the times of cases side by side."""
    first, *others = cases
    name = f'{name} {first.task} {size_text(first.size)}'
    return Job(name=name, quantity='time', cases=(first, *others))


def memory_job(case: Case) -> Job:
    """Returns the job that measures the peak memory of a case."""
    return Job(name=case.label(), quantity='memory', cases=(case,))
