"""The summary of ``docs/speed/README.md`` tells what the tables of its pages tell."""

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / 'docs' / 'speed'


def cells(lines):
    return [[cell.strip(' *') for cell in line.strip().strip('|').split('|')] for line in lines]


def ratios(page):
    """Returns theirs / ours of a page's default table by model and pass."""
    text = (PAGES / page).read_text(encoding='utf-8')
    table = re.search('<!-- default -->(.*?)<!-- /default -->', text, re.DOTALL).group(1)
    head, _, *rows = cells(line for line in table.splitlines() if line.startswith('|'))
    return {(row[0], row[1]): row[head.index('theirs / ours')] for row in rows}


def summary():
    lines = (PAGES / 'README.md').read_text(encoding='utf-8').splitlines()
    rows = cells(line for line in lines if re.match(r'\| .*\(`\w+:\w+`\)', line))
    return {re.search('`(.*)`', name).group(1): figures for name, *figures in rows}


@pytest.mark.parametrize(('page', 'first'), [('peers.md', 0), ('zen4.md', 2)])
def test_summary_of_speed(page, first):
    expected = ratios(page)
    for model, figures in summary().items():
        assert figures[first : first + 2] == [expected[model, p] for p in ('forward', 'train')]
    others = {model for (model, _), ratio in expected.items() if ratio != '-'}
    assert others == set(summary())  # no loss is left out
