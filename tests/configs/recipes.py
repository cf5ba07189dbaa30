"""Reads ``recipes.csv``: what papers and official code say that each config has to be.

The table is kept by hand and is independent of the configs. Its columns:

- ``momentum``: of SGD, or the betas of AdamW;
- ``no_decay``: parameters without weight decay, by parts of their names or by :data:`KINDS`;
- ``warm_up``: iterations, and the part of the learning rate that the first one has;
- ``length`` and ``fall``: how the learning rate goes down, to a tenth after some epochs, by a power
  of what is left, or by a cosine;
- ``batch``: images of all GPUs, eight of them, or one for the digit scenes;
- ``clip``: greatest norm of the gradients;
- ``layer_decay``: learning rate of a backbone layer over that of the next one;
- ``drop_path``: rate of the last block, growing from 0 in the first one unless ``constant``;
- ``weights``: the file that the backbone starts from;
- ``params``: millions in the whole model, as ``params_source`` prints them, ``trained`` if frozen
  ones are not counted.
"""

import csv
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from attnpool_backbones.zoo.config_names import ConfigName, config_name

KINDS = ('norm layers', 'biases', 'vectors')
"""Kinds of parameters that no part of a name tells; vectors have at most one dimension."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A row of the table; an empty cell is None, or 0, False or () where that says the same."""

    config: ConfigName
    optimizer: str
    lr: float
    weight_decay: float
    momentum: float | tuple[float, float]
    no_decay: tuple[str, ...]
    warm_up: tuple[int, float] | None
    epochs: int | None
    iterations: int | None
    milestones: tuple[int, ...]
    power: float | None
    eta_min: float
    batch: int
    clip: float | None
    mixed_precision: bool
    layer_decay: float | None
    drop_path: float
    constant_drop_path: bool
    weights: str | None
    frozen_stages: int
    norm_eval: bool
    with_cp: bool
    params: str | None
    counts_frozen: bool


def read_recipe(row: dict[str, str]) -> Recipe:
    """Reads a row of the table.

    Raises:
        ValueError: A cell that says nothing.
    """
    count, unit = row['length'].split()
    lengths = {'epochs': None, 'iterations': None}
    lengths[{'epochs': 'epochs', 'iterations': 'iterations'}[unit]] = int(count)
    momentum = tuple(map(float, row['momentum'].split()))
    warm_up, _, factor = row['warm_up'].partition(' from ')
    kind, *numbers = row['fall'].replace('tenth after', 'tenth').replace(' to ', ' ').split()
    if kind not in ('tenth', 'power', 'cosine'):
        raise ValueError(f'the learning rate of {row["config"]} falls by {row["fall"]!r}')
    power, eta_min = (*map(float, numbers), 0.0)[:2] if kind == 'power' else (None, 0.0)
    drop_path, _, constant = row['drop_path'].partition(' ')
    params, _, trained = row['params'].partition(' ')
    return Recipe(
        config=config_name(f'{row["config"]}.py'),
        optimizer=row['optimizer'],
        lr=float(row['lr']),
        weight_decay=float(row['weight_decay']),
        momentum=momentum if len(momentum) > 1 else momentum[0],
        no_decay=tuple(filter(None, row['no_decay'].split('; '))),
        warm_up=(int(warm_up), float(Fraction(factor))) if warm_up else None,
        **lengths,
        milestones=tuple(map(int, numbers)) if kind == 'tenth' else (),
        power=power,
        eta_min=eta_min,
        batch=int(row['batch']),
        clip=float(row['clip']) if row['clip'] else None,
        mixed_precision={'mixed': True, 'full': False}[row['precision']],
        layer_decay=float(row['layer_decay']) if row['layer_decay'] else None,
        drop_path=float(drop_path or 0),
        constant_drop_path={'constant': True, '': False}[constant],
        weights=row['weights'] or None,
        frozen_stages=int(row['frozen_stages'] or -1),
        norm_eval={'yes': True, '': False}[row['norm_eval']],
        with_cp={'yes': True, '': False}[row['with_cp']],
        params=params or None,
        counts_frozen={'trained': False, '': True}[trained],
    )


def _read_all() -> list[Recipe]:
    with (Path(__file__).parent / 'recipes.csv').open(newline='', encoding='utf-8') as lines:
        return [read_recipe(row) for row in csv.DictReader(lines)]


RECIPES = _read_all()
