"""Published numbers of models that no config here trains, beside those that they compare with.

``configs/<family>/compared.yml``, if there is one, is kept by hand: a list of models with ``Name``
(in the form of a config's name, for patterns), ``Title``, ``Dataset``, ``Metrics`` in percent,
``Source`` (see :mod:`attnpool_backbones.zoo.sources`) and maybe ``Parameters`` in millions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from attnpool_backbones.command_line import UserError
from attnpool_backbones.zoo.sources import Source

__all__ = ['ComparedModel', 'read_compared_models']

FILE_NAME = 'compared.yml'


@dataclass(frozen=True)
class ComparedModel:
    """A model of others."""

    name: str
    title: str
    data_set: str
    """Name of the data set, as the metafiles have it."""
    metrics: Mapping[str, float]
    """In percent, named as the evaluators name them."""
    source: Source
    parameters: float | None = None
    """Of the whole model in millions, about; None: not known."""


def read_compared_models(folder: Path, sources: Mapping[str, Source]) -> list[ComparedModel]:
    """Reads the models that a family is compared with.

    Args:
        folder: Of the family's configs.
        sources: Of :func:`~attnpool_backbones.zoo.sources.read_sources`.

    Returns:
        In the order of the file; none if there is no file.

    Raises:
        UserError: The file is no YAML, an entry lacks something, or its source is not known.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return []
    try:
        entries = yaml.safe_load(path.read_text(encoding='utf-8'))
        return [
            ComparedModel(
                entry['Name'],
                entry['Title'],
                entry['Dataset'],
                entry['Metrics'],
                sources[entry['Source']],
                entry.get('Parameters'),
            )
            for entry in entries
        ]
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    except KeyError as error:
        raise UserError(f'{path}: an entry lacks {error}, or no source is called so') from error
