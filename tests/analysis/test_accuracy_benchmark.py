"""The benchmark of the nano sizes; the training itself is tested in tests/tools."""

import csv
import io

import pytest

from attnpool_backbones.analysis.accuracy_benchmark import (
    COLUMNS,
    ENTRIES,
    comma_separated,
    markdown,
    picture,
    publish,
    run,
)
from attnpool_backbones.command_line import UserError

ROWS = [
    {key: 1.25 + i for key, _ in COLUMNS.values()} | dict(backbone=f'net{i}', machine='a machine')
    for i in range(2)
]


def test_every_family_and_the_baselines_take_part(repo_root):
    families = {path.split('/')[0] for heads in ENTRIES.values() for path in heads.values()}
    folders = {p.name for p in (repo_root / 'configs').iterdir() if p.is_dir()} - {'_base_'}
    assert families == folders
    for heads in ENTRIES.values():
        assert set(heads) == {'mask-rcnn', 'upernet'}
        for path in heads.values():
            assert (repo_root / 'configs' / path).is_file()


def test_tables_and_picture():
    lines = markdown(ROWS).splitlines()
    assert lines[2].startswith('| net0 | 1.2 | 1.2 |')
    assert lines[-1] == 'Machine: a machine.'
    assert {line.count('|') for line in lines[:4]} == {len(COLUMNS) + 1}
    read = list(csv.DictReader(io.StringIO(comma_separated(ROWS))))
    assert [row['backbone'] for row in read] == ['net0', 'net1']
    assert read[1]['mIoU'] == '2.25'
    assert picture(ROWS).startswith(b'\x89PNG')


def test_an_unknown_name_is_answered_with_the_right_ones(tmp_path):
    with pytest.raises(UserError, match='resnet-huge.*coatnet-nano'):
        run(tmp_path, ['resnet-huge'], print)


def test_publish(tmp_path):
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    (work_dir / 'results.md').write_text(markdown(ROWS))
    (work_dir / 'results.csv').write_text(comma_separated(ROWS))
    (work_dir / 'results.png').write_bytes(picture(ROWS))
    readme = tmp_path / 'README.md'
    readme.write_text('a\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nb\n')
    publish(work_dir, tmp_path)
    assert readme.read_text() == (
        f'a\n<!-- benchmark -->\n{markdown(ROWS)}<!-- /benchmark -->\nb\n'
    )
    assert (tmp_path / 'docs/benchmark/results.csv').read_text() == comma_separated(ROWS)
