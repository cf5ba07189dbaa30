"""The matrix of environments goes on where a call was stopped, with the same steps only."""

import runpy
import sys

import pytest


class Stop(Exception):
    """What Ctrl-C leaves behind."""


@pytest.fixture
def matrix(repo_root, monkeypatch):
    """Runs the tool with two rows, of which those in ``stopped`` stop it; returns what it ran."""
    main = runpy.run_path(str(repo_root / 'tools/misc/matrix.py'))['main']
    parts = main.__globals__
    rows = [parts['Row']('openmmlab', python, 'newest') for python in ('3.11', '3.12')]

    def run(*words: str, stopped: tuple[str, ...] = ()) -> list[str]:
        ran = []

        def run_row(row, *_):
            if row.python in stopped:
                raise Stop
            ran.append(row.python)

        monkeypatch.setitem(parts, 'run_row', run_row)
        monkeypatch.setattr(sys, 'argv', ['matrix.py', *words])
        if stopped:
            with pytest.raises(Stop):
                main()
        else:
            main()
        return ran

    for name, value in dict(
        all_rows=lambda: iter(rows), read_rows=list, write_rows=lambda rows: None,
        find_python=lambda version, system: 'python',
    ).items():  # fmt: skip
        monkeypatch.setitem(parts, name, value)
    return run


@pytest.mark.parametrize('steps', [(), ('--steps', 'setup', 'quickstart', 'tests')])
def test_a_stopped_call_is_gone_on_with(steps, matrix, tmp_path):
    words = ('--work-dir', str(tmp_path), *steps)
    assert matrix(*words, stopped=('3.12',)) == ['3.11']
    assert matrix(*words) == ['3.12']
    assert matrix(*words) == ['3.11', '3.12']


def test_rows_of_which_only_some_steps_were_run_are_not_done(matrix, tmp_path):
    words = ('--work-dir', str(tmp_path), '--keep')
    assert matrix(*words, '--steps', 'setup', stopped=('3.12',)) == ['3.11']
    assert matrix(*words, stopped=('3.12',)) == ['3.11']
    # of a whole call, which only some steps do not end
    assert matrix(*words, '--steps', 'tests') == ['3.11', '3.12']
    assert matrix(*words) == ['3.12']
