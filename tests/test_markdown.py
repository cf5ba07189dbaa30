"""Tables and sections that commands write."""

import os
import subprocess
import sys

import pytest

from attnpool_backbones.command_line import UserError
from attnpool_backbones.markdown import markdown_table, replace_section


def test_table():
    table = markdown_table(['model', 'mAP'], [['ours', '42.1'], ['theirs', '-']], {'mAP'})
    assert table == '| model | mAP |\n|---|---:|\n| ours | 42.1 |\n| theirs | - |\n'
    assert markdown_table(['empty'], []) == '| empty |\n|---|\n'


def test_section(tmp_path):
    file = tmp_path / 'README.md'
    file.write_text('before\n<!-- a -->\nold\n<!-- /a -->\nafter\n')
    replace_section(file, 'a', 'new\n')
    assert file.read_text() == 'before\n<!-- a -->\nnew\n<!-- /a -->\nafter\n'
    with pytest.raises(UserError, match='lacks the lines'):
        replace_section(file, 'b', 'new\n')


def test_section_of_a_page_in_another_locale(tmp_path):
    file = tmp_path / 'README.md'
    file.write_text('é – 2×\n<!-- a -->\n<!-- /a -->\n', encoding='utf-8')
    program = (
        'import sys; from pathlib import Path\n'
        'from attnpool_backbones.markdown import replace_section\n'
        "replace_section(Path(sys.argv[1]), 'a', 'new\\n')"
    )
    locale = dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
    command = [sys.executable, '-c', program, file]
    subprocess.run(command, check=True, env=os.environ | locale)
    expected = 'é – 2×\n<!-- a -->\nnew\n<!-- /a -->\n'
    assert file.read_text(encoding='utf-8') == expected
