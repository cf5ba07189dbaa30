"""Tables and sections that commands write."""

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
