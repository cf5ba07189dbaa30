import random

import pytest

from attnpool_backbones.command_line import UserError
from attnpool_backbones.own_data.folder import split_of_path
from attnpool_backbones.own_data.splitting import choose_splits

FILES = [f'patient{number // 5}_{number}.png' for number in range(50)]
NOTHING = [None] * len(FILES)


def test_made_splits_have_the_share_and_depend_on_nothing_but_names():
    splits, words = choose_splits(FILES, NOTHING, share=0.3)
    assert splits.count('val') == 15 and splits.count('train') == 35
    assert '15 in val' in words
    order = list(range(50))
    random.shuffle(order)
    again, _ = choose_splits([FILES[i] for i in order], NOTHING, share=0.3)
    assert [again[order.index(i)] for i in range(50)] == splits
    other, _ = choose_splits(FILES, NOTHING, share=0.3, seed=1)
    assert other != splits


def test_groups_stay_together():
    splits, _ = choose_splits(FILES, NOTHING, share=0.2, group=r'(patient\d+)_')
    sides = {}
    for file, split in zip(FILES, splits, strict=True):
        sides.setdefault(file.split('_')[0], set()).add(split)
    assert all(len(both) == 1 for both in sides.values())
    assert splits.count('val') == 10


@pytest.mark.parametrize('given', [['train', 'val'] * 25, ['val', None] * 25])
def test_groups_that_the_folder_divides_are_joined(given):
    splits, words = choose_splits(FILES, given, group=r'(patient\d+)_')
    assert splits == choose_splits(FILES, NOTHING, group=r'(patient\d+)_')[0]
    assert 'made here' in words and 'not as the folder says' in words


@pytest.mark.parametrize('rest', ['train', 'train val', None])
def test_groups_are_not_tested_and_trained_on(rest):
    others = [None] if rest is None else rest.split()
    given = [others[number % len(others)] for number in range(50)]
    given[3] = given[4] = given[12] = 'test'
    message = r'2 of 10 groups .* patient0 \(patient0_4.png and patient0_0.png\)'
    with pytest.raises(UserError, match=message):
        choose_splits(FILES, given, group=r'(patient\d+)_')
    # whole groups for testing stay, and so does what is of no group
    given[:15] = ['test'] * 15
    files = ['unknown.png', *FILES[1:]]
    splits, _ = choose_splits(files, given, group=r'(patient\d+)_')
    assert splits[:15] == ['test'] * 15 and set(splits[15:]) == {'train', 'val'}


def test_given_splits_are_kept():
    given = ['train'] * 30 + ['val'] * 10 + ['test'] * 10
    assert choose_splits(FILES, given)[0] == given


def test_validation_is_taken_from_training_where_it_lacks():
    given = ['train'] * 40 + ['test'] * 10
    splits, _ = choose_splits(FILES, given, share=0.25)
    assert splits[40:] == ['test'] * 10
    assert splits[:40].count('val') == 10


@pytest.mark.parametrize(
    'files, given, options, words',
    [
        (['a.png'], [None], {}, '1 image, at least 2'),
        (FILES, NOTHING, dict(group='(a'), 'no regular expression'),
        (FILES, NOTHING, dict(group='dog'), 'does not match patient0_0.png'),
        (FILES, NOTHING, dict(group='(patient)'), '1 group, at least 2'),
        (['a.png', 'b.png'], ['val', 'test'], {}, 'no image is in a split for training'),
    ],
)
def test_splits_that_cannot_be_made(files, given, options, words):
    with pytest.raises(UserError, match=words.replace('(', r'\(')):
        choose_splits(files, given, **options)


def test_both_splits_have_an_image_however_small_the_share():
    splits, _ = choose_splits(['a', 'b'], [None, None], share=0.01)
    assert sorted(splits) == ['train', 'val']


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('group', [None, r'(patient\d+)_'])
def test_made_splits_both_have_an_object(seed, group):
    labelled = [number in (3, 49) for number in range(50)]
    splits, _ = choose_splits(FILES, NOTHING, 0.2, group, seed, labelled)
    assert {splits[3], splits[49]} == {'train', 'val'}
    assert splits.count('val') == 10
    # as they are without asking, where that is fine
    usual, _ = choose_splits(FILES, NOTHING, 0.2, group, seed)
    assert usual == choose_splits(FILES, NOTHING, 0.2, group, seed, [True] * 50)[0]
    most = [not is_first for is_first in labelled]
    assert usual == choose_splits(FILES, NOTHING, 0.2, group, seed, most)[0]


@pytest.mark.parametrize(
    'path, split',
    [
        ('train2017/1.jpg', 'train'),
        ('images/validation/a.png', 'val'),
        ('photos/train_7.jpg', None),
        ('data/test-set/x/a.png', 'test'),
        ('train/val/a.png', 'val'),
        ('restrained/a.png', None),
    ],
)
def test_splits_that_folders_say(path, split):
    assert split_of_path(path) == split


def test_splits_that_the_names_of_files_say():
    assert split_of_path('annotations/instances_val2017.json', with_name=True) == 'val'
    assert split_of_path('labels.json', with_name=True) is None


@pytest.mark.parametrize(
    'given, counts, words',
    [
        ([None] * 40 + ['test'] * 10, dict(train=32, val=8, test=10), ''),
        ([None] * 40 + ['val'] * 10, dict(train=40, val=10), ''),
        ([None] * 30 + ['val'] * 10 + ['test'] * 10, dict(train=30, val=10, test=10), ''),
        (['test'] * 50, dict(train=40, val=10), ''),
        (['train'] * 40 + [None] * 10, dict(train=32, val=8), '10 in none, such as patient8_40'),
        (['train'] * 30 + ['val'] * 10 + [None] * 10, dict(train=30, val=10), '10 in none'),
    ],
)
def test_splits_of_some_images_are_kept_and_what_is_in_none_is_told(given, counts, words):
    splits, told = choose_splits(FILES, given)
    assert {name: splits.count(name) for name in counts} == counts
    assert splits.count(None) == 50 - sum(counts.values())
    if not counts.keys() <= {'train', 'val'} or None in given:
        assert all(s == g for s, g in zip(splits, given, strict=True) if g in ('val', 'test'))
    assert words in told and ('in none' in told) == (None in splits)
