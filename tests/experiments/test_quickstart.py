"""The quickstart's table and its place in the README."""

import pytest

from attnpool_backbones.experiments.quickstart import PICTURES, Result, publish, table

RESULT = Result(
    name='detection',
    model='MaskRCNN PatchConvNet-nano',
    metrics={'bbox mAP': 61.25, 'segm mAP': 50.0},
    parameters=1_234_567,
    macs=2_500_000_000,
    minutes=4.04,
    memory=900.0,
    command='python tools/test.py',
)


def test_table():
    lines = table([RESULT]).splitlines()
    assert len(lines) == 3
    assert lines[2] == (
        '| detection | MaskRCNN PatchConvNet-nano | bbox mAP **61.2**, segm mAP **50.0** '
        '| 1.23 M | 2.50 G | 4.0 |'
    )


def test_publish_replaces_only_the_table(tmp_path):
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    (work_dir / 'results.md').write_text(table([RESULT]))
    for name in PICTURES:
        (work_dir / name).write_bytes(name.encode())
    readme = tmp_path / 'README.md'
    readme.write_text('a\n<!-- quickstart -->\nold\n<!-- /quickstart -->\nb\n')
    for _ in range(2):
        publish(work_dir, tmp_path)
        assert readme.read_text() == (
            f'a\n<!-- quickstart -->\n{table([RESULT])}<!-- /quickstart -->\nb\n'
        )
    assert (tmp_path / 'docs/quickstart/attention.png').read_bytes() == b'attention.png'
    readme.write_text('no place')
    with pytest.raises(ValueError, match='lacks the lines'):
        publish(work_dir, tmp_path)


def test_the_readme_has_the_place(repo_root):
    text = (repo_root / 'README.md').read_text()
    assert text.index('<!-- quickstart -->') < text.index('<!-- /quickstart -->')
    page = (repo_root / 'docs' / 'quickstart' / 'README.md').read_text()
    assert all(f']({name})' in page for name in PICTURES)
