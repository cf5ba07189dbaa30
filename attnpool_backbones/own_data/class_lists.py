"""Lists of classes as they lie beside labels: names, and for masks often colours."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.findings import Problem
from attnpool_backbones.own_data.folder import Folder
from attnpool_backbones.own_data.labels import problem

__all__ = [
    'ClassList',
    'find_class_lists',
    'lists_differ',
    'lost_letters',
    'parse_class_list',
    'read_class_list',
]

FILES = (
    'classes.txt', 'class_names.txt', 'obj.names', 'names.txt', 'labels.txt', 'labelmap.txt',
    'label_map.txt', 'label_colors.txt', 'codes.txt', 'class_dict.csv', '_classes.csv',
    'classes.csv', '_darknet.labels',
)  # fmt: skip
IGNORED_NAMES = ('void', 'ignore', 'ignored', 'unlabelled', 'unlabeled', '_ignore_', '__ignore__')
"""Of classes that are none: their pixels are neither learnt nor scored."""
_NUMBERS = re.compile(r'\d+(\s+\d+)*$')
_COLOUR_FIRST = re.compile(r'(\d+\s+\d+\s+\d+)\s+(\D.*)')
_COLOUR_LAST = re.compile(r'(\D.*?)\s+(\d+\s+\d+\s+\d+)')
_VALUE_FIRST = re.compile(r'(\d+)\s+(\D.*)')
_VALUE_LAST = re.compile(r'(\D.*?)\s+(\d+)')


@dataclass(frozen=True)
class ClassList:
    """Names by label, and colours where the list has them."""

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...] | None = None
    values: tuple[int, ...] | None = None
    """Of the pixels, where the list has them; else they count from 0."""
    lines: tuple[str, ...] = ()
    """As they were read, where the list has values."""


def find_class_lists(folder: Folder) -> dict[str, ClassList]:
    """Finds the lists that lie in a folder, by their files in the order of :data:`FILES`."""
    by_name = defaultdict(list)
    for file in folder.files:
        by_name[PurePosixPath(file).name.lower()].append(file)
    files = chain.from_iterable(by_name[name] for name in FILES)
    return {file: parse_class_list(folder.text(file)) for file in files}


def lists_differ(first: str, second: str) -> Problem:
    """Words that two files name classes, and nothing tells which counts."""
    words = 'keep the one in the folder that the labels were made with'
    return problem('lists of classes differ', f'{first}, {second}', words)


def lost_letters(file: str, names: Iterable[str]) -> list[Problem]:
    """Tells a list whose text is no UTF-8, so that letters of its names are lost."""
    lost = next((name for name in names if '\N{REPLACEMENT CHARACTER}' in name), None)
    return [] if lost is None else [problem('no text in UTF-8', file, f'class {lost}')]


def read_class_list(words: list[str]) -> ClassList:
    """Reads the classes that a command line names: a file, or the names themselves.

    Args:
        words: A file's path, or names, also with commas between them.

    Raises:
        UserError: A file that is no text, an empty list, or a name that comes twice.
    """
    if len(words) == 1 and Path(words[0]).is_file():
        try:
            text = Path(words[0]).read_text(encoding='utf-8-sig')
        except UnicodeDecodeError as error:
            raise UserError(f'--classes: {words[0]} is no text in UTF-8') from error
        classes = parse_class_list(text)
    else:
        names = [name.strip() for word in words for name in word.split(',')]
        classes = ClassList(tuple(name for name in names if name))
    twice = sorted({name for name in classes.names if classes.names.count(name) > 1})
    if not classes.names or twice:
        raise UserError(f'--classes: {", ".join(twice) + " comes twice" if twice else "no names"}')
    return classes


def parse_class_list(text: str) -> ClassList:
    """Parses a list, one class a line.

    Understood are names alone; names with red, green and blue before or after them (CamVid's
    ``label_colors.txt``, CVAT's ``labelmap.txt``, tables of comma-separated values); and values of
    pixels with names (Roboflow's ``_classes.csv``). A number within a name is part of it: ``speed
    limit 30``, and so are those after which names would be the same: ``2 wheeler``, ``4 wheeler``.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith('#')]
    rows = [_fields(line) for line in lines]
    if rows and not rows[0][1] and len({len(names) + len(numbers) for names, numbers in rows}) == 1:
        rows = rows[1:]  # the heading of a table, if it is one: it has as many fields
    if rows and all(names and len(numbers) == 3 for names, numbers in rows):
        colours = tuple(tuple(colour) for _, colour in rows)
        return ClassList(tuple(names[0] for names, _ in rows), colours)
    if rows and all(names and len(numbers) == 1 for names, numbers in rows):
        names = tuple(names[0] for names, _ in rows)
        values = tuple(numbers[0] for _, numbers in rows)
        if len(set(values)) == len(set(names)) == len(rows):
            return ClassList(names, values=values, lines=tuple(lines[-len(rows) :]))
    last = [_VALUE_LAST.fullmatch(line) for line in lines]
    if last and all(last):
        names, values = zip(*(match.groups() for match in last), strict=True)
        # of names that end with a number none need be 0, or they are else the same
        if '0' in values and len(set(names)) == len(set(values)) == len(lines):
            return ClassList(names, values=tuple(map(int, values)), lines=tuple(lines))
    return ClassList(tuple(lines))


def _fields(line: str) -> tuple[list[str], list[int]]:
    """Splits a line into what is no number and what is one."""
    words = [word.strip() for word in re.split(r'[,:;\t]', line) if word.strip()]
    if len(words) == 1:
        found = next(
            (match for form in (_COLOUR_FIRST, _COLOUR_LAST, _VALUE_FIRST)
             if (match := form.fullmatch(line))), None
        )  # fmt: skip
        words = list(found.groups()) if found else words
    numbers = [int(n) for word in words if _NUMBERS.match(word) for n in word.split()]
    return [word for word in words if not _NUMBERS.match(word)], numbers
