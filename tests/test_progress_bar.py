"""How far something is, where stderr is no terminal."""

import pytest

from attnpool_backbones.progress_bar import progress_bar


@pytest.mark.parametrize(
    ('in_bytes', 'steps', 'words'),
    [
        (False, [(1, 12), (2, 12)], ['images', '2/12']),
        (False, [(1, None), (3, None)], ['images', '3/?']),
        (True, [(1000, 2000), (2000, 2000)], ['images', '2.0/2.0 kB']),
    ],
)
def test_the_last_state_is_told_once(in_bytes, steps, words, capsys):
    with progress_bar('images', in_bytes) as show:
        for done, total in steps:
            show(done, total)
    out, told = capsys.readouterr()
    assert not out and all(word in told for word in words)
    assert told.count('images') == 1 and told.count('\n') == 1


def test_nothing_is_told_before_the_first_call(capsys):
    with progress_bar('images'):
        pass
    out, told = capsys.readouterr()
    assert not out + told
