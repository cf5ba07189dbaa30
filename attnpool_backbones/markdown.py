"""Markdown that commands write: tables, and sections of files from a comment to the next."""

from collections.abc import Collection, Sequence
from pathlib import Path

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.command_line import UserError

__all__ = ['markdown_table', 'replace_section']


def markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str] = ()
) -> str:
    """Returns a table.

    Args:
        columns: Titles.
        rows: Cells.
        numbers: Titles of the columns that are set flush right. Default: none.

    Returns:
        Lines, each ending with a newline.
    """
    rule = '|'.join('---:' if column in numbers else '---' for column in columns)
    head, *body = ('| ' + ' | '.join(cells) + ' |\n' for cells in (columns, *rows))
    return ''.join([head, f'|{rule}|\n', *body])


def replace_section(path: Path, name: str, content: str) -> None:
    """Replaces what is between ``<!-- name -->`` and ``<!-- /name -->``.

    Args:
        path: Of the Markdown file.
        name: Of the section.
        content: Ends with a newline.

    Raises:
        UserError: The file has no such section.
    """
    text = path.read_text(encoding='utf-8')
    start, end = f'<!-- {name} -->\n', f'<!-- /{name} -->'
    if start not in text or end not in text:
        raise UserError(f'{path} lacks the lines {start!r} and {end!r}, a place for the table')
    before, rest = text.split(start, 1)
    after = rest[rest.index(end) :]
    write_atomically(f'{before}{start}{content}{after}'.encode(), path)
