"""The package that is built: one wheel for all, the same archive from the same sources."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

NOT_SOURCES = ('.git', '.venv', 'data', 'work_dirs', 'build', 'dist', '*.egg-info', '__pycache__')
BUILD = 'from setuptools.build_meta import build_{0}; print(build_{0}({1!r}))'


def build(kind: str, repo_root: Path, folder: Path, age: int) -> Path:
    """Builds from a copy of the sources whose files were changed some seconds ago."""
    sources = folder / 'sources'
    # `data` of the clone, not of the tests
    ignored = shutil.ignore_patterns(*NOT_SOURCES)
    shutil.copytree(repo_root, sources, ignore=ignored)
    for path in sources.rglob('*'):
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    target = folder / 'dist'
    target.mkdir()
    code = BUILD.format(kind, str(target))
    subprocess.run(
        [sys.executable, '-c', code], cwd=sources, check=True, capture_output=True, text=True
    )
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope='module')
def archives(repo_root, tmp_path_factory):
    return [
        build('sdist', repo_root, tmp_path_factory.mktemp('sdist'), age) for age in (0, 100_000)
    ]


def test_two_archives_of_the_same_sources_are_equal(archives):
    assert archives[0].name == archives[1].name
    one, other = (hashlib.sha256(path.read_bytes()).hexdigest() for path in archives)
    assert one == other


def test_the_archive_has_all_that_a_build_needs(archives):
    with tarfile.open(archives[0]) as archive:
        members = archive.getmembers()
    names = {member.name.partition('/')[2] for member in members}
    assert {'setup.py', 'pyproject.toml', 'README.md', 'configs/sources.yml'} <= names
    assert {'attnpool_backbones/py.typed', 'requirements/base.txt'} <= names
    assert {(m.uid, m.gid, m.uname) for m in members} == {(0, 0, '')}


def test_one_wheel_has_code_types_and_configs(repo_root, tmp_path):
    wheel = build('wheel', repo_root, tmp_path, 0)
    assert wheel.name.endswith('-py3-none-any.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = {name.partition('/')[2] for name in names if name.startswith('attnpool_backbones/')}
    assert {'py.typed', 'model-index.yml', 'configs/_base_/default_runtime_det.py'} <= inside
    configs = {str(path.relative_to(repo_root)) for path in (repo_root / 'configs').rglob('*.py')}
    assert configs == {name for name in inside if name[:8] == 'configs/' and name[-3:] == '.py'}
    assert not [name for name in names if name.startswith(('tests/', 'tools/'))]
