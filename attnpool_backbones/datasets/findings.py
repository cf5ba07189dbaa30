"""What a check of data sets finds."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

__all__ = ['Found', 'Problem', 'Report', 'by_kind']

Found = Callable[[str, object, str], None]
"""Takes the kind, the item and the detail of a problem."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        split: 'train', 'val' or 'test'.
        kind: What is wrong, the same words for all cases of it.
        item: The file, or the number of the image or annotation.
        detail: The wrong value, and the right ones where that helps.
    """

    split: str
    kind: str
    item: str
    detail: str


@dataclass(frozen=True)
class Report:
    """What was looked at, and what was found.

    Args:
        images: How many images were looked at, by split.
        problems: All that is wrong.
        notes: What may be right, which nobody but the owner of the data can tell.
    """

    images: Mapping[str, int]
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many problems of each kind there are, most first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())

    def to_json(self) -> str:
        """Returns everything, as text for a file."""
        content = dict(
            images=dict(self.images),
            counts=self.counts,
            problems=[asdict(problem) for problem in self.problems],
            notes=[asdict(note) for note in self.notes],
        )
        return json.dumps(content, indent=1) + '\n'


def by_kind(problems: Iterable[Problem]) -> dict[str, list[Problem]]:
    """Returns the cases of each kind, in the order in which they were found."""
    kinds = defaultdict(list)
    for problem in problems:
        kinds[problem.kind].append(problem)
    return dict(kinds)
