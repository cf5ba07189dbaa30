"""Results of earlier measurements, kept in a file with the conditions that they hold for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnpool_backbones.command_line import UserError


def kept_results(
    file: Path, names: tuple[str, str], now: Mapping[str, Any], cure: str
) -> list[Any]:
    """Returns the results of a file, none if it is not there.

    Args:
        file: Of JSON.
        names: Of the conditions and of the results in it.
        now: The conditions of the measurements to come.
        cure: What to do where the file cannot be gone on with.

    Raises:
        UserError: It is damaged, or its results are of other conditions.
    """
    if not file.exists():
        return []
    try:
        content = json.loads(file.read_text())
        stored, results = (content[name] for name in names)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{file} has no {names[1]} with their {names[0]}; {cure}') from error
    changed = [name for name in {**now, **stored} if stored.get(name) != now.get(name)]
    if changed:
        found = ', '.join(f'{n} {stored.get(n)!r}, now {now.get(n)!r}' for n in changed)
        raise UserError(f'{file} was measured otherwise ({found}); {cure}')
    return results
