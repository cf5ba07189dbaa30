"""What is wrong with labels and their images: put together, and put into words."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.findings import Problem, Report, by_kind
from attnpool_backbones.own_data.coco_files import places_of_annotations
from attnpool_backbones.own_data.labels import SPLITS, LabelledImages, LabelMaps

__all__ = ['BrokenLabels', 'all_problems', 'list_problems', 'note_lines']

SHOWN = 20
"""Cases of one kind that a message lists."""
CONSEQUENCES = frozenset(
    {'no annotations', 'nothing left to train on', 'classes that are no names'}
)
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


def all_problems(
    labels: LabelledImages | LabelMaps, found: Sequence[Problem]
) -> tuple[Problem, ...]:
    """Adds what verification found to what reading the labels told, each fault once.

    Args:
        labels: As they were read.
        found: In the data sets that were made of them.
    """
    known = {item.item for item in labels.problems}
    # each ending of images is a data set of its own, which does not know the others' masks
    hidden = {'mask without an image'}
    if labels.problems:
        hidden |= CONSEQUENCES
    return (
        *labels.problems,
        *(
            problem
            for problem in _of_labels(found, labels)
            if problem.kind not in hidden and not _is_known(problem, known)
        ),
    )


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
    for kind, cases in by_kind(problems).items():
        lines.append(f'{kind} ({len(cases)}):')
        for case in cases[:shown]:
            place = case.item if case.split == 'labels' else f'{case.split}: {case.item}'
            lines.append(f'  {place}' + (f': {case.detail}' if case.detail else ''))
        if len(cases) > shown:
            more = len(cases) - shown
            lines.append(f'  ... and {more} more; attnpool verify --json FILE lists all')
    return '\n'.join(lines)


def note_lines(notes: Sequence[Problem]) -> list[str]:
    """Words what verification found that may be meant so, a line for each kind."""
    return [
        f'{kind}: {len(cases)}, such as {cases[0].item} ({cases[0].detail})'
        for kind, cases in by_kind(notes).items()
    ]
