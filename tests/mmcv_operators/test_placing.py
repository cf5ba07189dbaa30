import importlib
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec

import pytest

from attnpool_backbones.command_line import UserError
from attnpool_backbones.mmcv_operators import placing
from attnpool_backbones.mmcv_operators.__main__ import main
from attnpool_backbones.mmcv_operators.finder import STAND_IN, StandInFinder, add_finder

RECORD = 'mmcv/__init__.py,sha256=abc,10\n"mmcv/a,b.py",,\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An installed mmcv without operators."""
    folder = tmp_path / 'mmcv'
    folder.mkdir()
    (folder / '__init__.py').write_text('')
    for name, record in (('mmcv_lite-2.1.0', RECORD), ('other-1.0', 'other.py,,\n')):
        info = tmp_path / f'{name}.dist-info'
        info.mkdir()
        (info / 'RECORD').write_text(record)
    spec = ModuleSpec('mmcv', None, origin=str(folder / '__init__.py'))
    monkeypatch.setattr(placing, 'find_spec', lambda name: spec)
    return folder


def records(folder) -> list[str]:
    return [file.read_text() for file in sorted(folder.parent.glob('*.dist-info/RECORD'))]


def test_install_and_remove_leave_what_was_there(folder):
    before = {file.name for file in folder.iterdir()}
    assert 'install' in placing.status()
    assert str(folder / '_ext.py') in placing.install()
    assert (folder / '_ext.py').read_text() == STAND_IN.read_text()
    assert records(folder) == [RECORD + 'mmcv/_ext.py,,\n', 'other.py,,\n']
    assert placing.status() == f'plain torch, by {folder / "_ext.py"}'
    placing.install()
    assert records(folder)[0] == RECORD + 'mmcv/_ext.py,,\n'
    assert placing.remove() == f'removed {folder / "_ext.py"}'
    assert {file.name for file in folder.iterdir()} == before
    assert records(folder) == [RECORD, 'other.py,,\n']
    assert 'nothing to do' in placing.remove()


def test_compiled_operators_are_left_alone(folder):
    compiled = folder / f'_ext{EXTENSION_SUFFIXES[0]}'
    compiled.write_bytes(b'')
    assert placing.install() == f'nothing to do: mmcv has compiled operators, {compiled}'
    assert placing.status() == f'compiled, {compiled}'
    assert not (folder / '_ext.py').exists()


def test_files_of_others_are_left_alone(folder):
    foreign = folder / '_ext.py'
    foreign.write_text('# somebody wrote this\n')
    with pytest.raises(UserError, match='is not of attnpool_backbones'):
        placing.install()
    assert 'nothing to do' in placing.remove()
    assert 'not of attnpool_backbones' in placing.status()
    assert foreign.read_text() == '# somebody wrote this\n'


def test_without_mmcv_the_cure_is_told(monkeypatch):
    monkeypatch.setattr(placing, 'find_spec', lambda name: None)
    for command in (placing.install, placing.remove, placing.status):
        with pytest.raises(UserError, match='pip install mmcv-lite'):
            command()


def test_a_folder_that_cannot_be_written(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(placing.Path, 'write_text', refuse)
    with pytest.raises(UserError, match='_ext.py cannot be written: Permission denied'):
        placing.install()


def test_command_line(folder, monkeypatch, capsys):
    for command, words in (('status', 'for others'), ('install', 'wrote'), ('remove', 'removed')):
        monkeypatch.setattr(sys, 'argv', ['mmcv_operators', command])
        assert main() == 0
        assert words in capsys.readouterr().out


def test_the_finder_is_last_and_answers_for_one_name():
    add_finder()
    assert sys.meta_path.count(StandInFinder) == 1
    assert StandInFinder.find_spec('mmcv') is None
    assert StandInFinder.find_spec('mmcv._extra') is None
    assert StandInFinder.find_spec('mmcv._ext').origin == str(STAND_IN)
    importlib.invalidate_caches()  # asks every finder


PROGRAM = """
import sys
sys.path.insert(0, {site!r})
{first}
import mmcv._ext
print(mmcv._ext.__name__)
"""


@pytest.mark.parametrize(
    'prepared, first, answers',
    [
        (False, 'import attnpool_backbones', 'attnpool_backbones.mmcv_operators.extension'),
        (True, '', 'attnpool_backbones.mmcv_operators.extension'),
        (False, '', "No module named 'mmcv._ext'"),
    ],
)
def test_what_a_program_imports(folder, prepared, first, answers):
    if prepared:
        placing.install()
    program = PROGRAM.format(site=str(folder.parent), first=first)
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert answers in done.stdout + done.stderr


def test_a_prepared_mmcv_without_this_package_says_so(folder):
    placing.install()
    program = PROGRAM.format(
        site=str(folder.parent), first="sys.modules['attnpool_backbones.mmcv_operators'] = None"
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert 'attnpool_backbones, which is not installed' in done.stderr
    assert str(folder / '_ext.py') in done.stderr


def test_the_serving_operators_are_told():
    from attnpool_backbones.compatibility import serving_operators

    ours = importlib.import_module('attnpool_backbones.mmcv_operators.extension')
    assert serving_operators(ours) == 'plain torch (attnpool_backbones.mmcv_operators.extension)'
    compiled = ModuleSpec('mmcv._ext', None)
    compiled.__name__, compiled.__file__ = 'mmcv._ext', '_ext.so'
    assert serving_operators(compiled) == 'compiled (_ext.so)'


FOREIGN_TOOL = """
import sys
class Hidden:  # an mmcv without operators, compiled or installed
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == 'mmcv._ext':
            for finder in sys.meta_path:
                if getattr(finder, '__name__', '') == 'StandInFinder':
                    return finder.find_spec(name)
            raise ModuleNotFoundError("No module named 'mmcv._ext'")
sys.meta_path.insert(0, Hidden)
from mmengine.config import Config  # what mmdet's tools/train.py imports
from mmengine.runner import Runner
from mmdet.utils import setup_cache_size_limit_of_dynamo
assert 'attnpool_backbones' not in sys.modules
Config.fromfile({config!r})
import mmcv.ops
print(sys.modules['mmcv._ext'].__name__)
"""


def test_a_config_brings_the_operators_to_the_training_tool_of_mmdet(tmp_path):
    pytest.importorskip('mmdet')
    config = tmp_path / 'mine.py'
    config.write_text("custom_imports = dict(imports=['attnpool_backbones'])\n")
    program = FOREIGN_TOOL.format(config=str(config))
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert 'attnpool_backbones.mmcv_operators.extension' in done.stdout, done.stderr
