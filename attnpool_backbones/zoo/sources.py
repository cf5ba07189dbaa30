"""Where the published numbers of the metafiles stand, and which of them may be shown.

A number is shown when somebody has seen it at a place that others can visit: its entry has the
status ``published``, and ``configs/sources.yml`` has its source with place and date.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from attnpool_backbones.command_line import UserError

__all__ = ['Source', 'read_sources', 'shown_entries']

FILE_NAME = 'sources.yml'
_FORMS = {
    'Place': (re.compile(r'https://\S+'), 'https://...'),
    'Date': (re.compile(r'20\d\d-(0[1-9]|1[0-2])(-\d\d)?'), 'YYYY-MM or YYYY-MM-DD'),
}


@dataclass(frozen=True)
class Source:
    """A publication, a page or a discussion."""

    name: str
    """As the metafiles call it."""
    place: str
    """Address."""
    date: str
    """Year and month of the version that was read, maybe the day."""
    about: str = ''
    """Whose training it reports, of a source that stands beside others for the same config."""

    @property
    def link(self) -> str:
        """Markdown with name, place and date."""
        return f'[{self.name}]({self.place}), {self.date}'


def read_sources(configs: Path) -> dict[str, Source]:
    """Reads all sources.

    Args:
        configs: Folder of all configs.

    Returns:
        By name.

    Raises:
        UserError: The file is missing or no YAML, or a source has no place or date.
    """
    path = configs / FILE_NAME
    try:
        # BaseLoader: a date stays the text that it is
        content = yaml.load(path.read_text(encoding='utf-8'), Loader=yaml.BaseLoader)
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    for name, fields in content.items():
        for field, (form, example) in _FORMS.items():
            value = fields.get(field, '')
            if not form.fullmatch(value):
                raise UserError(f'{path}: {field} of {name!r} is {value!r}, not {example}')
    return {
        name: Source(name, fields['Place'], fields['Date'], fields.get('About', ''))
        for name, fields in content.items()
    }


def shown_entries(
    model: Mapping[str, Any], sources: Mapping[str, Source]
) -> list[tuple[Source, dict[str, float]]]:
    """Picks what may be shown of a model's published numbers.

    Args:
        model: Of a metafile.
        sources: Of :func:`read_sources`.

    Returns:
        Source and metrics of each entry that was seen at its source, in the order of the metafile.

    Raises:
        UserError: Such an entry names a source that is not known.
    """
    shown = []
    for entry in model.get('Published', []):
        if entry['Status'] != 'published':
            continue
        if entry['Source'] not in sources:
            raise UserError(
                f'{model["Name"]} has numbers of {entry["Source"]!r}, of which configs/{FILE_NAME} '
                'knows neither place nor date'
            )
        shown.append((sources[entry['Source']], entry['Metrics']))
    return shown
