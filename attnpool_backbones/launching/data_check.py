"""Checks of the annotations before a run, and of the data sets that are built from them."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_distributed

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_tasks import recognise_task
from attnpool_backbones.datasets.findings import Problem, by_kind
from attnpool_backbones.datasets.verification import inspect
from attnpool_backbones.launching.config_errors import explained

__all__ = ['build_loops', 'require_annotations']

CHECKPOINT = 'the checkpoint'
LEFT_OUT = frozenset(
    {
        'annotation id 0 where it is scored',
        'annotation of no area',
        'annotation that is left out',
        'annotation without an image',
        'box below one pixel',
        'box of no area',
        'box outside the image',
        'categories in another order than classes',
        'file that scores other images than are tested',
        'image below min_size',
        'image listed more than once',
        'mask without an image',
        'polygon that is ignored',
        'wrong class id',
    }
)
"""Problems that a run can go on with: what they are about is left out, or told in the wrong words.
All others end in an error later, or in wrong numbers."""
EXAMPLES = 3


def require_annotations(cfg: Config, splits: Sequence[str], max_bad: int) -> list[str]:
    """Checks the annotations of a run as `attnpool verify` does, without the images.

    Args:
        cfg: The whole config.
        splits: Which dataloaders the run reads.
        max_bad: With 0 what would be left out ends the run, too.

    Returns:
        Lines about what is left out.

    Raises:
        UserError: The run would fail at some annotation, or give wrong numbers.
    """
    problems: list[Problem] = []
    if recognise_task(cfg) == 'mmengine':
        return []  # of images in folders build_loops compares the classes
    try:
        inspect(cfg, splits, problems)
    except UserError as error:
        # a data set of a kind that this check does not know: the run will tell
        return [f'the annotations are not checked: {error}']
    problems = list(dict.fromkeys(problems))
    fatal = [p for p in problems if p.kind not in LEFT_OUT or max_bad == 0]
    if fatal:
        raise UserError(
            '\n'.join(
                [
                    f'the data of {cfg.filename} cannot be used:',
                    *(f'  {line}' for line in lines_of(fatal)),
                    'attnpool verify CONFIG --json FILE lists all of it',
                ]
            )
        )
    return lines_of(problems)


def lines_of(problems: Sequence[Problem]) -> list[str]:
    """Returns a line for each kind of problem, with examples."""
    lines = []
    for kind, cases in by_kind(problems).items():
        examples = '; '.join(f'{p.split}: {p.item} ({p.detail})' for p in cases[:EXAMPLES])
        more = f'; {len(cases) - EXAMPLES} more' if len(cases) > EXAMPLES else ''
        lines.append(f'{kind}: {examples}{more}')
    return lines


def build_loops(runner: Any, splits: Sequence[str], trained: Sequence[str] = ()) -> dict[str, Any]:
    """Builds the loops of a run with their data sets and dataloaders.

    Args:
        runner: Not yet started.
        splits: Which of 'train', 'val' and 'test'.
        trained: Classes of the checkpoint that a classifier is tested with, or goes on from.
            Default: ``()``, not known.

    Returns:
        The dataloaders by split.

    Raises:
        UserError: If one cannot be built or has no batch, or if two data sets of a classifier, or
            one and its checkpoint, number their classes in different ways.
    """
    cfg = runner.cfg
    loaders = {}
    for split in splits:
        if cfg.get(f'{split}_dataloader') is None:
            continue
        with explained(cfg, f'{split}_dataloader'):
            # the loop builds its dataloader, once
            loaders[split] = getattr(runner, f'{split}_loop').dataloader
        require_batches(loaders[split], cfg[f'{split}_dataloader'], split)
        require_length(runner, split)
    if recognise_task(cfg) == 'mmengine':
        require_same_labels(loaders, trained)
    return loaders


def require_same_labels(loaders: Mapping[str, Any], trained: Sequence[str] = ()) -> None:
    """Checks that a label stands for one class in all data sets of a classifier.

    Args:
        loaders: By split.
        trained: As of :func:`build_loops`.

    Raises:
        UserError: Naming the first label that stands for two.
    """
    classes = {
        f'{split}_dataloader': tuple(loader.dataset.metainfo.get('classes') or ())
        for split, loader in loaders.items()
    }
    classes = {CHECKPOINT: tuple(trained), **classes}
    # names that are the labels, as in ImageNet-V2, stand for whatever these mean elsewhere
    named = {
        place: names
        for place, names in classes.items()
        if names and names != tuple(map(str, range(len(names))))
    }
    first, expected = next(iter(named.items()), ('', ()))
    for place, names in named.items():
        pairs = zip_longest(names, expected, fillvalue='no class')
        for label, (name, other) in enumerate(pairs):
            if name != other:
                lists = [f'{each}.dataset.classes=a,b,c' for each in (first, place)]
                remedy = (
                    f'give it those of the checkpoint, as in --cfg-options {lists[1]}'
                    if first == CHECKPOINT
                    else 'give these the same names, or both the same list, as in '
                    f'--cfg-options {" ".join(lists)}'
                )
                raise UserError(
                    f'label {label} is {name} in {place} ({len(names)} classes), but {other} in '
                    f'{first} ({len(expected)} classes): without a list classes are the folders '
                    f'that are there, sorted; {remedy}'
                )


def require_length(runner: Any, split: str) -> None:
    """Checks that a training is to last.

    Raises:
        UserError: If it ends before it begins.
    """
    if split != 'train':
        return
    for name in ('max_epochs', 'max_iters'):
        if getattr(runner, name) < 1:
            raise UserError(f'train_cfg.{name} is {getattr(runner, name)}, not 1 or more')


def require_batches(loader: Any, settings: Any, split: str) -> None:
    """Checks that a dataloader has a batch.

    Raises:
        UserError: Telling how many images there are, and how many a batch takes.
    """
    images = len(loader.dataset)
    if not images:
        raise UserError(f'{split}_dataloader: its data set has no image')
    try:
        batches = len(loader)
    except TypeError:  # of an endless sampler
        return
    if not batches and (split == 'train' or not is_distributed()):
        size = settings.get('batch_size', 1)
        raise UserError(
            f'{split}_dataloader: {images} images make no batch of {size} with drop_last=True; set '
            f'{split}_dataloader.batch_size={images} or less, or drop_last=False'
        )
