"""Data that is missing on disk is named before anything is built, all at once."""

import pytest
from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.config_paths import dataset_paths, require_data

COCO = dict(
    type='CocoDataset',
    data_root='data/coco/',
    data_prefix=dict(img='val2017/'),
    ann_file='annotations/instances_val2017.json',
)
ADE = dict(
    type='ADE20KDataset',
    data_root='data/ade/ADEChallengeData2016',
    data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
)
OWN = dict(type='CocoDataset', data_root='data/cats', ann_file='annotations/instances_mine.json')
DIGITS = dict(type='CocoDataset', data_root='data/digit_scenes', ann_file='annotations/a.json')


def config(dataset: dict, split: str = 'train', **settings: object) -> Config:
    return Config({f'{split}_dataloader': dict(dataset=dataset), **settings})


@pytest.mark.parametrize(
    ('dataset', 'hint', 'paths'),
    [
        (
            COCO,
            'https://cocodataset.org',
            ['data/coco/annotations/instances_val2017.json', 'data/coco/val2017'],
        ),
        (
            ADE,
            'sceneparsing.csail.mit.edu',
            [
                'data/ade/ADEChallengeData2016/images/training',
                'data/ade/ADEChallengeData2016/annotations/training',
            ],
        ),
        (DIGITS, 'make_digit_scenes.py', ['data/digit_scenes/annotations/a.json']),
    ],
)
def test_missing_data_is_named_with_its_source(dataset, hint, paths, tmp_path, monkeypatch):
    # the folder's name must not decide about the hint
    folder = tmp_path / 'coco_digit_ADE20K'
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(UserError) as caught:
        require_data(config(dataset), ('train', 'val'))
    message = str(caught.value)
    assert all(str(folder / path) in message for path in paths)
    assert message.count('https://') + message.count('http://') + message.count('make_dig') == 1
    assert hint in message


def test_own_data_is_not_called_coco():
    with pytest.raises(UserError, match='instances_mine.json') as caught:
        require_data(config(OWN), ('train',))
    assert 'COCO 2017' not in str(caught.value)


def test_wrappers_lists_and_evaluators():
    wrapped = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[COCO, ADE]))
    assert len(list(dataset_paths(wrapped))) == 4
    remote = dict(type='CocoDataset', data_root='s3://bucket/', ann_file='a.json')
    assert list(dataset_paths(remote)) == []
    old_style = dict(type='CocoDataset', data_root='root', data_prefix='images')
    assert [path for *_, path in dataset_paths(old_style)] == ['root/images']
    cfg = config(
        dict(type='CocoDataset'),
        'val',
        val_evaluator=[dict(type='CocoMetric', ann_file='nowhere.json'), dict(type='Other')],
    )
    with pytest.raises(UserError, match='nowhere.json .val CocoMetric.ann_file'):
        require_data(cfg, ('val',))


def test_only_the_splits_that_are_read_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    require_data(config(COCO, 'train'), ('test',))


def test_empty_folder(tmp_path):
    (tmp_path / 'images').mkdir()
    dataset = dict(type='CocoDataset', data_root=str(tmp_path), data_prefix=dict(img='images'))
    with pytest.raises(UserError, match='empty folder'):
        require_data(config(dataset), ('train',))
    (tmp_path / 'images' / 'one.jpg').touch()
    require_data(config(dataset), ('train',))
