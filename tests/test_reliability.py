"""Every promise of docs/reliability.md has a test, and as many trials that held as were made."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs/reliability.md'
NUMBER = re.compile(r'\d[\d,]*')


def rows() -> list[tuple[str, str, str]]:
    """Returns promise, trials and tests of the rows of the page."""
    found, in_table = [], False
    for line in PAGE.read_text().splitlines():
        if not line.startswith('|'):
            in_table = False
        elif line == '| promise | tried / held | test |':
            in_table = True
        elif in_table and not line.startswith('|---'):
            found.append(tuple(cell.strip() for cell in line.strip('|').split('|')))
    return found


ROWS = rows()


def numbers(text: str) -> list[int]:
    return [int(found.replace(',', '')) for found in NUMBER.findall(text)]


def kept_promises(trials: str) -> bool:
    """Tells whether what held is one of the numbers tried, or all of them together."""
    tried, *held = trials.split(' / ')
    for text in held:
        count = NUMBER.match(text)
        if count is None:
            return text.startswith('all')
        made = numbers(tried)
        if numbers(count.group())[0] not in (*made, sum(made)):
            return False
        tried = text[count.end() :]
    return bool(held)


def counted() -> list[tuple[int, str, str]]:
    """Returns count, file and pattern of names of the rows whose count is that of named tests."""
    found = []
    for _, trials, tests in ROWS:
        plain = re.fullmatch(r'(\d+) / \1(, \*slow\*)?', trials)
        named = re.fullmatch(r'`(tests/[\w/.]+)` \((.+)\)', tests)
        if plain and named:
            names = re.findall(r'`([^`]+)`', named.group(2))
            pattern = '|'.join(name.replace('*', r'\w*') for name in names)
            found.append((int(plain.group(1)), named.group(1), pattern))
    return found


def test_counts_of_named_tests() -> None:
    rows = counted()
    assert len(rows) > 8
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', '--collect-only', '-q',
         *sorted({file for _, file, _ in rows})],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    collected = [line.partition('::') for line in done.stdout.splitlines() if '::' in line]
    for count, file, pattern in rows:
        names = [name for path, _, name in collected if path.startswith(file)]
        assert count == sum(re.search(pattern, name) is not None for name in names), (file, pattern)


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 40 and all(len(row) == 3 for row in ROWS)
    assert kept_promises('25 kills in 10 chains / 10, *slow*; 1 / 1')
    assert kept_promises('4 + 6 settings / 10') and kept_promises('3 sizes / all')
    assert not kept_promises('200 / 199') and not kept_promises('soon')
    assert not kept_promises('2 / 2, 200 / 199')


@pytest.mark.parametrize('row', ROWS, ids=[row[0][:40] for row in ROWS])
def test_row(row: tuple[str, str, str]) -> None:
    _, trials, tests = row
    assert kept_promises(trials), trials
    folder, contents = ROOT, []
    for text in re.findall(r'`([^`]+)`', tests):
        if not text.startswith('tests/') and not text.endswith('.py'):
            # part of the name of a test in the file before, or of a setting there
            pattern = text.replace('*', r'\w*')
            assert re.search(rf"(def test_\w*|'){pattern}", contents[-1]), text
            continue
        path = ROOT / text if '/' in text else folder / text
        files = sorted(path.glob('test_*.py')) if path.is_dir() else [path]
        contents.append('\n'.join(file.read_text() for file in files))
        assert 'def test_' in contents[-1], text
        folder = path.parent
    assert contents
    assert '*slow*' not in trials or 'pytest.mark.slow' in '\n'.join(contents)
