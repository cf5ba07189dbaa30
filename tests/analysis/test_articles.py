"""docs/articles.md names what is there."""

import re
import shlex
from pathlib import Path

import pytest

from attnpool_backbones.analysis.command import KINDS, parser_of_figures
from attnpool_backbones.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'articles.md').read_text()
CODE = re.findall(r'`([^`]+)`', PAGE)
ROWS = [line for line in PAGE.splitlines() if re.match(r'\| \d', line)]
FIGURES = sorted({code for code in CODE if re.match(r'attnpool figure \w', code)})


def test_every_row_has_a_command_or_says_that_it_is_missing():
    for row in ROWS:
        _, number, _, _, command, ours, _ = row.split('|')
        assert command.strip() or '**not there yet**' in row or 'published only' in row, number
        assert not ours.strip() or re.search(r'\d', ours), number
    papers = [row.split('|')[1].strip().partition('.')[0] for row in ROWS]
    assert sorted(set(papers)) == ['0', '1', '2', '3', '4'] and len(ROWS) >= 42


def test_files_are_there():
    named = {path for code in CODE for path in re.findall(r'[\w-]+(?:/[\w.-]+)+\.py|\w+/\w*', code)}
    files = {path for path in named if path.endswith('.py')}
    assert len(files) > 40
    for path in files:
        assert any((folder / path).is_file() for folder in (ROOT, ROOT / 'attnpool_backbones')), (
            path
        )


def test_variants_are_there():
    found = {pair for code in CODE for pair in re.findall(r'([A-Z]\w+):(\w+)', code)}
    assert len(found) > 25
    for kind, arch in found:
        assert arch in MODELS.get(f'attnpool_backbones.{kind}').archs, (kind, arch)


@pytest.mark.parametrize('line', FIGURES)
def test_figures_are_commands(line):
    args = parser_of_figures().parse_args(shlex.split(line)[2:])
    assert args.kind in KINDS
    assert getattr(args, 'images', 'IMAGES') == 'IMAGES'
