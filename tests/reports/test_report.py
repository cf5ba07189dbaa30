"""``--report FOLDER`` of tests, from the command to the page."""

import csv
import io
import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from mmengine.config import Config

pytest.importorskip('hotcoco')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.launching import outputs
from attnpool_backbones.launching.outputs import enable_report
from attnpool_backbones.reports.contents import Column, Contents, Pair, Picture
from attnpool_backbones.reports.figures import confusion_matrix, precision_and_recall
from attnpool_backbones.reports.page import write_report
from tests.launching.tiny_scenes import run_test, run_training, write_config


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp('reports') / 'digit_scenes'
    generate(root, train=4, val=3, size=(64, 64))
    return root


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_a_test_writes_a_report(task, scenes, tmp_path, capfd):
    (checkpoint,) = run_training(write_config(tmp_path, task, scenes)).glob('*.pth')
    folder = tmp_path / 'report'
    metrics = run_test(write_config(tmp_path, task, scenes), checkpoint, report=str(folder))
    assert f'report: {folder / "index.html"}' in capfd.readouterr().out
    report = json.loads((folder / 'report.json').read_text())
    rows = list(csv.DictReader((folder / 'classes.csv').open()))
    page = (folder / 'index.html').read_text()
    assert len(rows) == len(report['classes']) == (10 if task == 'det' else 11)
    column, metric, unit = ('AP', 'coco/bbox_mAP', 1) if task == 'det' else ('IoU', 'mIoU', 100)
    known = [float(row[column]) for row in rows if row[column]]
    assert np.mean(known) * unit == pytest.approx(metrics[metric], abs=0.006)
    assert report['metrics'][metric] == pytest.approx(metrics[metric])
    pictures = ['confusion.png', *(['precision_recall.png', 'errors.png'] if task == 'det' else [])]
    images = [f'images/{k:02d}_{kind}.jpg' for k in range(3) for kind in ('labels', 'predictions')]
    for name in (*pictures, *images):
        assert f'src="{name}"' in page and (folder / name).stat().st_size > 1000
    assert str(checkpoint) in page
    written = {p.name for p in folder.iterdir() if p.name.startswith(('.', 'pred'))}
    assert written == (
        {'predictions.bbox.json', 'predictions.segm.json'} if task == 'det' else set()
    )


def config(**keys):
    return Config(dict(default_scope='mmdet', **keys))


@pytest.mark.parametrize(
    ('evaluator', 'message'),
    [
        (dict(type='VOCMetric'), 'is of what CocoMetric finds; the test_evaluator has VOCMetric'),
        ([], 'the test_evaluator has no metric'),
        ([dict(type='CocoMetric', ann_file=f) for f in 'ab'], 'of one set of labels; .* several'),
        (dict(type='CocoMetric', metric='proposal'), 'bbox or segm, not proposal'),
        (dict(type='mmdet.CocoMetric', format_only=True), 'bbox or segm, not format_only'),
    ],
)
def test_evaluators_that_tell_no_errors(evaluator, message, tmp_path):
    with pytest.raises(UserError, match=message):
        enable_report(config(test_evaluator=evaluator), str(tmp_path), 'title')


def test_of_several_metrics_the_first_that_evaluates_is_told(scenes, tmp_path, capfd):
    (checkpoint,) = run_training(write_config(tmp_path, 'det', scenes)).glob('*.pth')
    labels = str(scenes / 'annotations/instances_val.json')
    kinds = ('proposal', 'segm', 'bbox')
    several = [dict(type='CocoMetric', ann_file=labels, metric=kind) for kind in kinds]
    config = write_config(tmp_path, 'det', scenes, f'test_evaluator = {several}')
    folder = tmp_path / 'report'
    metrics = run_test(config, checkpoint, report=str(folder))
    assert '--report is of the first CocoMetric that evaluates' in capfd.readouterr().out
    assert not (folder / 'predictions.bbox.json').exists()
    rows = json.loads((folder / 'report.json').read_text())['classes']
    known = [row['AP'] for row in rows if row['AP'] is not None]
    assert np.mean(known) == pytest.approx(metrics['coco/segm_mAP'], abs=0.006)


def test_a_missing_hotcoco_is_told_before_the_test(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match="pip install 'hotcoco>=1.3'"):
        enable_report(config(test_evaluator=dict(type='CocoMetric')), str(tmp_path), 'title')


def test_images_that_were_left_out_are_not_drawn(scenes, tmp_path):
    (checkpoint,) = run_training(write_config(tmp_path, 'det', scenes)).glob('*.pth')
    damaged = tmp_path / 'damaged'
    shutil.copytree(scenes, damaged)
    first, *_ = sorted((damaged / 'images/validation').iterdir())
    first.write_bytes(first.read_bytes()[:60])
    folder = tmp_path / 'report'
    run_test(write_config(tmp_path, 'det', damaged), checkpoint, report=str(folder))
    page = (folder / 'index.html').read_text()
    assert page.count('_labels.jpg') == 2 and first.name not in page


def test_the_hook_comes_beside_others(tmp_path):
    cfg = config(test_evaluator=[dict(type='CocoMetric')], custom_hooks=[dict(type='Other')])
    enable_report(cfg, str(tmp_path / 'r'), 'title')
    assert [hook.type for hook in cfg.custom_hooks] == ['Other', 'attnpool_backbones.ReportHook']
    assert cfg.test_evaluator[0].outfile_prefix == str(tmp_path / 'r' / '.predictions')
    cfg = config(test_evaluator=dict(type='IoUMetric', ignore_index=0))
    cfg.default_scope = 'mmseg'
    enable_report(cfg, str(tmp_path), 'title')
    assert cfg.test_evaluator[1] == dict(type='attnpool_backbones.PixelConfusion', ignore_index=0)


def test_names_are_text_and_unknown_numbers_a_dash(tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8)
    contents = Contents(
        summary=['1 < 2'],
        columns=[Column('objects', 'how many'), Column('AP', 'a mean', percent=True)],
        classes=[['<b>', 3, 0.125], ['none', 0, None]],
        pictures=[Picture('drawn', Figure(), 'a & b')],
        pairs=[Pair('<photo>.jpg', '1 wrong', picture, picture)],
        doubts=['"x"'],
        numbers=dict(matrix=np.eye(2), unknown=float('nan')),
    )
    page = write_report(contents, {'mAP': 0.5}, '<title>', tmp_path).read_text()
    for text in ('&lt;b&gt;', '1 &lt; 2', 'a &amp; b', '&lt;photo&gt;.jpg: 1 wrong',
                 '&quot;x&quot;', '<h1>&lt;title&gt;</h1>'):  # fmt: skip
        assert text in page
    assert '<td>3</td><td>12.5</td>' in page and '<td>0</td><td>-</td>' in page
    assert (tmp_path / 'classes.csv').read_text() == 'class,objects,AP\n<b>,3,0.125\nnone,0,\n'
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['matrix'] == [[1, 0], [0, 1]] and report['unknown'] is None
    assert report['classes'][1] == {'class': 'none', 'objects': 0, 'AP': None}


def test_pictures_of_an_earlier_report_go(tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8)
    pairs = [Pair(f'{k}.jpg', '1 wrong', picture, picture) for k in range(3)]
    contents = Contents(summary=[], columns=[], classes=[], pictures=[], pairs=pairs)
    write_report(contents, {}, 'title', tmp_path)
    (tmp_path / 'images/mine.jpg').touch()
    write_report(replace(contents, pairs=pairs[:1]), {}, 'title', tmp_path)
    names = sorted(path.name for path in (tmp_path / 'images').iterdir())
    assert names == ['00_labels.jpg', '00_predictions.jpg', 'mine.jpg']


@pytest.mark.parametrize('folders', [False, True])
def test_a_test_of_a_classifier_writes_a_report(folders, scenes, tmp_path, capfd):
    stem = config_root() / 'classification/resnet-nano-attnpool_digit-crops.py'
    data = ''
    if folders:
        for split, count in (('train', 8), ('val', 3)):
            for name in ('a, b', '<c>'):
                (tmp_path / split / name).mkdir(parents=True)
                for k in range(count):
                    picture = np.full((48, 48, 3), 9 * k, np.uint8)
                    cv2.imwrite(str(tmp_path / split / name / f'{k}.png'), picture)
        data = 'model = dict(head=dict(num_classes=2))\n' + ''.join(
            f"{split}_dataloader = dict(dataset=dict(_delete_=True, type='attnpool_backbones."
            f"ClassFolders', data_root={str(tmp_path)!r}, data_prefix=dict(img={prefix!r}), "
            "pipeline=[dict(type='LoadImageFromFile'), dict(type='attnpool_backbones.PackImage')]))"
            '\n'
            for split, prefix in (('train', 'train'), ('val', 'val'), ('test', 'val'))
        )
    else:
        for split in ('train', 'val', 'test'):
            data += f'{split}_dataloader = dict(dataset=dict(data_root={str(scenes)!r}))\n'
    config = tmp_path / f'classifier_{folders}.py'
    loader = ''.join(
        f'{split}_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)\n'
        for split in ('train', 'val', 'test')
    )
    base = tmp_path / f'base_{folders}.py'
    base.write_text(f'_base_ = {str(stem)!r}\n{data}train_cfg = dict(max_epochs=1)\n')
    config.write_text(f'_base_ = {str(base)!r}\n{loader}')
    (checkpoint,) = run_training(config).glob('*.pth')
    folder = tmp_path / 'report'
    metrics = run_test(config, checkpoint, report=str(folder))
    assert f'{metrics["accuracy/top1"]:.1f} % of the' in capfd.readouterr().out
    report = json.loads((folder / 'report.json').read_text())
    confusion = np.array(report['confusion'])
    assert 100 * confusion.trace() / confusion.sum() == pytest.approx(metrics['accuracy/top1'])
    page = (folder / 'index.html').read_text()
    assert 'surest mistakes' in page and 'Left: the labels' not in page
    assert 'src="images/00_labels.jpg"' in page and (folder / 'images/00_labels.jpg').is_file()
    assert not list((folder / 'images').glob('*predictions*'))
    if folders:
        assert confusion.sum() == 6 and '&lt;c&gt;' in page
        assert report['mistakes'][0]['image'].startswith(str(tmp_path / 'val'))


def test_names_of_classes_are_no_formulas_and_all_have_a_line():
    names = ['costs $5 {a$', '_hidden', 'plain']
    matrix = confusion_matrix(np.eye(3), names)
    curves = precision_and_recall(np.linspace(0, 1, 5), {name: np.ones(5) for name in names})
    for figure in (matrix, curves):
        figure.savefig(io.BytesIO())
    (axes,) = curves.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == names
