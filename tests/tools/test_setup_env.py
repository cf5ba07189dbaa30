"""``make setup`` notices a Python that is another or gone; the Pythons here install nothing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FAKE = """#!/bin/sh
case "$1 $2 $3" in
    "-c import"*) echo {version} ;;
    "--version "*) echo Python {version}.0 ;;
    "-m venv --clear") rm -rf "$4"; mkdir -p "$4/bin"; ln -s "$0" "$4/bin/python" ;;
    "-m venv "*) mkdir -p "$3/bin"; [ -L "$3/bin/python" ] || ln -s "$0" "$3/bin/python" ;;
esac
"""


@pytest.fixture
def clone(repo_root, tmp_path) -> Path:
    """Returns what the set-up reads, with Pythons of two versions beside it."""
    root = tmp_path / 'clone'
    shutil.copytree(repo_root / 'requirements', root / 'requirements')
    for file in ('tools/setup_env.sh', 'Makefile', 'setup.py', 'pyproject.toml',
                 'attnpool_backbones/version.py'):  # fmt: skip
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repo_root / file, root / file)
    for name, version in (('python3', '3.11'), ('python3.11', '3.11'), ('python3.12', '3.12')):
        (tmp_path / name).write_text(FAKE.format(version=version))
        (tmp_path / name).chmod(0o755)
    return root


def set_up(clone: Path, *words: str) -> subprocess.CompletedProcess:
    path = f'{clone.parent}{os.pathsep}{os.environ["PATH"]}'
    return subprocess.run(
        ['make', 'setup', *words],
        cwd=clone,
        env=dict(PATH=path, HOME=str(clone)),
        capture_output=True,
        text=True,
    )


def test_another_python_is_refused(clone):
    assert 'the environment is ready' in set_up(clone).stdout
    for words in ([], ['PYTHON=python3.11']):
        again = set_up(clone, *words)
        assert (again.returncode, again.stdout) == (0, ''), again.stderr
    other = set_up(clone, 'PYTHON=python3.12')
    assert other.returncode
    assert ".venv has Python 3.11, but 'python3.12' is 3.12" in other.stderr
    assert 'rm -rf .venv' in other.stderr
    missing = set_up(clone, 'PYTHON=python3.99')
    assert missing.returncode and "'python3.99' does not run" in missing.stderr


def test_a_python_that_was_asked_for_stays_without_asking(clone):
    assert 'the environment is ready' in set_up(clone, 'PYTHON=python3.12').stdout
    again = set_up(clone)
    assert (again.returncode, again.stdout) == (0, ''), again.stderr


def test_a_python_that_is_gone_is_replaced(clone):
    set_up(clone, 'PYTHON=python3.12')
    (clone.parent / 'python3.12').unlink()
    again = set_up(clone)
    assert again.returncode == 0, again.stderr
    assert 'the Python of .venv does not run any more' in again.stdout
    assert 'the environment is ready' in again.stdout
    assert (clone / '.venv/bin/python').resolve() == clone.parent / 'python3'


def test_a_copied_clone_has_an_environment_of_its_own(clone):
    set_up(clone)
    (clone / '.venv/bin/pip').write_text(f'#!{clone}/.venv/bin/python')
    copy = clone.parent / 'copy'
    shutil.copytree(clone, copy, symlinks=True)
    again = set_up(copy)
    assert again.returncode == 0, again.stderr
    assert 'the environment is ready' in again.stdout
    assert not (copy / '.venv/bin/pip').exists()
    assert (copy / '.venv/.stamps/wheels').stat().st_mtime_ns > (
        clone / '.venv/.stamps/wheels'
    ).stat().st_mtime_ns
