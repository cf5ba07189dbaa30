"""What is known of a data set once its annotations are checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from attnpool_backbones.datasets.findings import Problem
from attnpool_backbones.datasets.sample_reading import Sample

__all__ = ['Inspected']


@dataclass(frozen=True)
class Inspected:
    """A data set without its images read.

    Args:
        problems: What is wrong with the annotations.
        samples: The images.
        classes: Names of the classes, by the config.
        order: The same in the order of their labels, empty if that is not known.
        image_ids: Ids of all images.
        ann_file: The annotation file, empty if there is none.
    """

    problems: Sequence[Problem]
    samples: Sequence[Sample] = field(default_factory=tuple)
    classes: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    image_ids: frozenset = frozenset()
    ann_file: str = ''
