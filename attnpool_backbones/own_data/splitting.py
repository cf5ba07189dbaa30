"""Which images are trained on and which are for validation."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from attnpool_backbones.command_line import UserError
from attnpool_backbones.own_data.folder import Folder
from attnpool_backbones.own_data.labels import SPLITS

__all__ = ['choose_splits', 'copies_across']


def choose_splits(
    files: Sequence[str],
    given: Sequence[str | None],
    share: float = 0.2,
    group: str | None = None,
    seed: int = 0,
    labelled: Sequence[bool] | None = None,
) -> tuple[list[str | None], str]:
    r"""Keeps the splits that the labels say, or makes the ones that are lacking.

    The same files, share, pattern and seed give the same splits, on every machine and in any order
    of the files. With a pattern training and validation are made anew, by group, also where the
    labels say both; images for testing stay, and none may be of a group that is trained on.

    Args:
        files: Images, relative to their folder.
        given: ``'train'``, ``'val'``, ``'test'`` or None for each.
        share: Of the images that go to validation where it has to be made.
        group: Regular expression; what its first group (or all of it) matches in a file name is
            the name of the image's group, for instance ``'(patient\d+)_'``.
        seed: Another number gives other splits.
        labelled: Which images have objects; where splits are made and two groups have some, both
            splits get one. Default: all have.

    Returns:
        The splits, None for an image that is in none; and in words where they come from.

    Raises:
        UserError: If there are too few images or groups, the pattern does not match a file, or a
            group has images for testing and others.
    """
    counts = Counter(split for split in given if split is not None)
    if counts['val'] and not counts['train']:
        if counts.total() == len(files):
            raise UserError(
                f'no image is in a split for training, {_words(counts)}: name a folder or a list '
                'train'
            )
        # what is not for validation is there to train on
        given = [split or 'train' for split in given]
        counts = Counter(given)
    if counts['train'] and counts['val'] and group is None:
        return list(given), _told(files, given, 'as the folder says')
    # a split for testing stays, unless there is nothing else; the rest is divided
    stays = 'test' if counts['test'] < len(files) else None
    free = [index for index, split in enumerate(given) if split != stays or split is None]
    if counts['train']:
        free = [index for index in free if given[index] in ('train', 'val')]
    groups = defaultdict(list)
    for index in free:
        groups[_group(files[index], group)].append(index)
    if group is not None:
        tested = [file for file, split in zip(files, given, strict=True) if split == stays]
        _require_untested(groups, files, tested, group)
    if len(groups) < 2:
        kind = 'group' if group else 'image'
        raise UserError(f'{len(groups)} {kind}, at least 2 are needed to train and to validate')
    order = sorted(groups, key=lambda name: hashlib.sha1(f'{seed}:{name}'.encode()).hexdigest())
    wanted = min(max(round(share * len(free)), 1), len(free) - 1)
    full = [n for n in order if labelled is None or any(labelled[i] for i in groups[n])]
    for_val = _take(order, groups, wanted)
    if len(full) > 1 and for_val.isdisjoint(full):
        order.remove(full[0])
        for_val = _take([full[0], *order], groups, wanted)
    elif len(full) > 1 and for_val.issuperset(full):
        order.remove(full[-1])
        for_val = _take([*order, full[-1]], groups, wanted)
    splits = [split if split == stays else None for split in given]
    for name, members in groups.items():
        for index in members:
            splits[index] = 'val' if name in for_val else 'train'
    made = f'made here: {share:.0%} for validation' + (f', grouped by {group}' if group else '')
    if counts['val']:
        made += ', not as the folder says'
    return splits, _told(files, splits, made)


def _take(order: Sequence[str], groups: Mapping[str, Sequence[int]], wanted: int) -> set[str]:
    """Takes groups in their order, without the last one, until these are as many images."""
    taken, count = set(), 0
    for name in order[:-1]:
        if count < wanted:
            taken.add(name)
            count += len(groups[name])
    return taken


def _group(file: str, pattern: str | None) -> str:
    if pattern is None:
        return file
    name = _matched(file, pattern)
    if name is None:
        raise UserError(f'--group {pattern}: does not match {file}')
    return name


def _matched(file: str, pattern: str) -> str | None:
    try:
        found = re.search(pattern, file)
    except re.error as error:
        raise UserError(f'--group {pattern}: no regular expression ({error})') from error
    return found and (found[1] if found.re.groups else found[0])


def _require_untested(
    groups: Mapping[str, Sequence[int]], files: Sequence[str], tested: Sequence[str], pattern: str
) -> None:
    """Raises UserError if images for testing are of groups that are trained on or validate."""
    # the name of an image for testing that is of no group need not match
    shared = {name: file for file in tested if (name := _matched(file, pattern)) in groups}
    if shared:
        name, file = next(iter(shared.items()))
        raise UserError(
            f'--group {pattern}: {len(shared)} of {len(groups)} groups have images for testing '
            f'too, such as {name} ({file} and {files[groups[name][0]]}), and a test would score '
            'what was trained on; move the images of each group to one side'
        )


def copies_across(
    folder: Folder, files: Sequence[str], splits: Sequence[str | None]
) -> Iterator[str]:
    """Words that photos of one split are in another one too, byte for byte.

    Args:
        folder: Opened.
        files: Images.
        splits: Of each, None if it is in none.
    """
    split_of = {file: split for file, split in zip(files, splits, strict=True) if split}

    def of_several(groups: Iterable[list[str]], key: Callable[[str], Hashable]) -> list[list[str]]:
        found = []
        for group in groups:
            alike = defaultdict(list)
            for file in group:
                alike[key(file)].append(file)
            found += [same for same in alike.values() if len({*map(split_of.get, same)}) > 1]
        return found

    # few files have one size, so that few are read
    groups = [list(split_of)]
    for key in (
        lambda file: folder.path(file).stat().st_size,
        lambda file: hashlib.sha1(folder.both_ends(file)).digest(),
        lambda file: hashlib.sha1(folder.path(file).read_bytes()).digest(),
    ):
        groups = of_several(groups, partial(_tried, key))
    if groups:
        first = min(groups)
        other = next(file for file in first if split_of[file] != split_of[first[0]])
        yield (
            f'{len(groups)} photos are in several splits, such as {first[0]} '
            f'({split_of[first[0]]}), a copy of {other} ({split_of[other]}): scores are too good '
            'where what is tested was trained on'
        )


def _tried(key: Callable[[str], Hashable], file: str) -> Hashable:
    try:
        return key(file)
    except OSError:
        return file  # is told by verification


def _words(counts: Counter[str]) -> str:
    return ', '.join(f'{counts[name]} in {name}' for name in SPLITS if counts[name])


def _told(files: Sequence[str], splits: Sequence[str | None], origin: str) -> str:
    left = [file for file, split in zip(files, splits, strict=True) if split is None]
    words = f', {len(left)} in none, such as {left[0]}, are left out' if left else ''
    return f'{_words(Counter(filter(None, splits)))} ({origin}){words}'
