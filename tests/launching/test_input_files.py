"""What is missing on disk is named before anything is built, all at once."""

import pytest
from mmengine.config import Config
from mmengine.model import PretrainedInit

from attnpool_backbones.config_files import config_root
from attnpool_backbones.launching.errors import PreflightError
from attnpool_backbones.launching.input_files import (
    dataset_paths,
    pretrained_files,
    require_data,
    require_pretrained,
)

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
    with pytest.raises(PreflightError) as caught:
        require_data(config(dataset), ('train', 'val'))
    message = str(caught.value)
    assert all(str(folder / path) in message for path in paths)
    assert message.count('https://') + message.count('http://') + message.count('make_dig') == 1
    assert hint in message


def test_own_data_is_not_called_coco():
    with pytest.raises(PreflightError, match='instances_mine.json') as caught:
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
    with pytest.raises(PreflightError, match='nowhere.json .val CocoMetric.ann_file'):
        require_data(cfg, ('val',))


def test_only_the_splits_that_are_read_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    require_data(config(COCO, 'train'), ('test',))


def test_empty_folder(tmp_path):
    (tmp_path / 'images').mkdir()
    dataset = dict(type='CocoDataset', data_root=str(tmp_path), data_prefix=dict(img='images'))
    with pytest.raises(PreflightError, match='empty folder'):
        require_data(config(dataset), ('train',))
    (tmp_path / 'images' / 'one.jpg').touch()
    require_data(config(dataset), ('train',))


def test_pretrained_files(tmp_path):
    model = dict(
        backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='missing.pth')),
        heads=[
            dict(
                init_cfg=[
                    dict(type='Pretrained', checkpoint='https://x.org/a.pth'),
                    dict(type='Normal', std=0.1),
                    dict(type=PretrainedInit, checkpoint='lost.pth'),
                ]
            )
        ],
    )
    assert list(pretrained_files(model)) == ['missing.pth', 'lost.pth']
    with pytest.raises(PreflightError, match='missing.pth'):
        require_pretrained(Config(dict(model=model)))


def test_pretrained_files_of_own_configs_have_a_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_root() / 'attn_resnet' / 'retinanet_se-resnet50_fpn_2x_coco.py'
    with pytest.raises(PreflightError, match='se_resnet50.pth.tar') as caught:
        require_pretrained(Config.fromfile(config))
    page = config.with_name('README.md')
    assert f'{page}, section Weights' in str(caught.value) and '\n## Weights\n' in page.read_text()
    (tmp_path / 'mine.py').write_text(f'_base_ = {str(config)!r}')
    (tmp_path / 'README.md').touch()
    with pytest.raises(PreflightError, match='se_resnet50.pth.tar') as caught:
        require_pretrained(Config.fromfile(tmp_path / 'mine.py'))
    assert 'README' not in str(caught.value)
