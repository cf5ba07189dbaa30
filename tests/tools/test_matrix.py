"""What was seen with each Python is kept in a file, from which the table is made."""

import importlib.util
from dataclasses import replace

import pytest


@pytest.fixture
def matrix(repo_root, tmp_path, monkeypatch):
    path = repo_root / 'tools' / 'misc' / 'matrix.py'
    spec = importlib.util.spec_from_file_location('tools_matrix', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    monkeypatch.setattr(module, 'RESULTS', tmp_path / 'docs' / 'matrix.jsonl')
    (tmp_path / 'docs').mkdir()
    page = tmp_path / 'docs' / 'compatibility.md'
    page.write_text('before\n<!-- matrix -->\nold\n<!-- /matrix -->\nafter\n')
    return module


def test_what_was_seen_is_read_back_and_replaced_whole(matrix):
    assert matrix.read_rows() == []
    one, two = (
        replace(row, torch='2.6.0', setup='950 s', tests='3 passed', failed=['a.py::b[c]'])
        for row in list(matrix.all_rows())[:2]
    )
    matrix.write_rows({one.key: one})
    assert matrix.read_rows() == [one]
    with matrix.RESULTS.open() as before:
        matrix.write_rows({two.key: two, one.key: one})
        # a call that ends while it writes leaves this
        assert before.read().count('\n') == 1
    assert matrix.read_rows() == [one, two]
    page = (matrix.ROOT / 'docs' / 'compatibility.md').read_text()
    assert page.startswith('before\n') and page.endswith('after\n') and 'old\n' not in page
    assert page.count('| 950 s | - | 3 passed |') == 2 and page.count('1 of `a.py::b`') == 2
