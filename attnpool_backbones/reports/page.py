"""A report as a page with its pictures, and as tables for programs."""

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnpool_backbones.analysis.drawing import plain, write_figure
from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.html_page import html_page, pictures_with_words
from attnpool_backbones.pictures import encoded_picture
from attnpool_backbones.reports.contents import Column, Contents, Pair

__all__ = ['write_report']

KINDS = ('labels', 'predictions')
"""What the two drawings of an image show."""


def write_report(
    contents: Contents, metrics: Mapping[str, float], title: str, folder: Path
) -> Path:
    """Writes a report.

    Args:
        contents: What it tells.
        metrics: Of the test.
        title: Of the page.
        folder: Gets ``index.html`` with its pictures, ``classes.csv`` and ``report.json``, each
            whole or not at all; the page is the last one. Images of an earlier report that it does
            not show are removed then.

    Returns:
        The page.
    """
    for picture in contents.pictures:
        write_figure(picture.figure, folder / f'{picture.name}.png')
    shown = [_write_pair(pair, index, folder) for index, pair in enumerate(contents.pairs)]
    write_atomically(_csv(contents).encode(), folder / 'classes.csv')
    numbers = dict(
        title=title, metrics=dict(metrics), summary=list(contents.summary),
        classes=[_named(row, contents.columns) for row in contents.classes],
        doubts=list(contents.doubts), **contents.numbers,
    )  # fmt: skip
    write_atomically(json.dumps(plain(numbers), indent=1).encode(), folder / 'report.json')
    page = folder / 'index.html'
    write_atomically(_page(contents, metrics, title, shown), page)
    kept = {folder / name for names in shown for name in names}
    for kind in KINDS:
        for picture in folder.glob(f'images/[0-9][0-9]_{kind}.jpg'):
            if picture not in kept:
                picture.unlink()
    return page


def _named(row: Sequence[Any], columns: Sequence[Column]) -> dict[str, Any]:
    return dict(zip(['class', *(column.title for column in columns)], row, strict=True))


def _csv(contents: Contents) -> str:
    lines = io.StringIO()
    rows = csv.writer(lines, lineterminator='\n')
    rows.writerow(['class', *(column.title for column in contents.columns)])
    for name, *values in contents.classes:
        rows.writerow([name, *('' if v is None else f'{v:.6g}' for v in values)])
    return lines.getvalue()


def _write_pair(pair: Pair, index: int, folder: Path) -> list[str]:
    """Writes the drawings and returns their names, relative to the page."""
    names = []
    for kind, picture in zip(KINDS, (pair.labels, pair.predictions), strict=True):
        if picture is None:
            continue
        name = f'images/{index:02d}_{kind}.jpg'
        write_atomically(encoded_picture(folder / name, picture), folder / name)
        names.append(name)
    return names


def _page(
    contents: Contents, metrics: Mapping[str, float], title: str, shown: Sequence[Sequence[str]]
) -> bytes:
    parts = [_paragraph('; '.join(f'{k} {v:.4g}' for k, v in metrics.items()))]
    parts += map(_paragraph, contents.summary)
    parts.append('<h2>Classes, the worst first</h2>')
    parts.append(_table(contents))
    words = '; '.join(f'{column.title}: {column.means}' for column in contents.columns)
    parts.append(_paragraph(f'{words}. The same in classes.csv.'))
    for picture in contents.pictures:
        parts.append(pictures_with_words([f'{picture.name}.png'], picture.reading))
    if any(pair.predictions is not None for pair in contents.pairs):
        parts.append('<h2>Images with the most errors</h2>')
        parts.append(_paragraph('Left: the labels. Right: what the model says.'))
    elif shown:
        parts.append('<h2>The surest mistakes</h2>')
    for pair, names in zip(contents.pairs, shown, strict=True):
        parts.append(pictures_with_words(names, f'{pair.path}: {pair.words}'))
    if contents.doubts:
        parts.append('<h2>Labels that are perhaps wrong</h2>')
        parts.append(f'<ul>{"".join(f"<li>{_text(doubt)}</li>" for doubt in contents.doubts)}</ul>')
    return html_page(title, parts)


def _table(contents: Contents) -> str:
    head = ''.join(f'<th>{_text(title)}</th>' for title in
                   ['class', *(column.title for column in contents.columns)])  # fmt: skip
    rows = []
    for name, *values in contents.classes:
        cells = map(_cell, values, contents.columns)
        rows.append(f'<tr><td>{_text(name)}</td>{"".join(f"<td>{c}</td>" for c in cells)}</tr>')
    return f'<table><tr>{head}</tr>\n' + '\n'.join(rows) + '\n</table>'


def _cell(value: float | None, column: Column) -> str:
    if value is None:
        return '-'
    if column.percent:
        return f'{100 * value:.1f}'
    return f'{value}' if isinstance(value, int) else f'{value:.4f}'


def _paragraph(text: str) -> str:
    return f'<p>{_text(text)}</p>'


def _text(text: Any) -> str:
    return html.escape(str(text))
