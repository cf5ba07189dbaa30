"""Where the predictions of a test go."""

import pytest
from mmengine.config import Config
from mmengine.evaluator import DumpResults, Evaluator

from attnpool_backbones.command_line import UserError
from attnpool_backbones.launching.outputs import (
    dump_predictions,
    enable_pictures,
    is_pickle,
    write_label_maps,
)


@pytest.mark.parametrize(
    'evaluator',
    [
        None,
        dict(type='IoUMetric'),
        [dict(type='IoUMetric'), dict(type='Other')],
        dict(type='Evaluator', metrics=dict(type='IoUMetric')),
    ],
)
def test_predictions_are_dumped_after_the_metrics(evaluator):
    cfg = Config(dict(default_scope='mmseg', test_evaluator=evaluator))
    dump_predictions(cfg, 'out.pkl')
    metrics = cfg.test_evaluator
    if isinstance(evaluator, dict) and 'metrics' in evaluator:
        assert metrics.type == 'Evaluator'
        metrics = metrics.metrics
    kinds = [metric.type for metric in metrics]
    assert kinds[-1] == 'DumpResults' and kinds[:-1] in ([], ['IoUMetric'], ['IoUMetric', 'Other'])
    (dump,) = Evaluator(metrics[-1:]).metrics
    assert type(dump) is DumpResults and dump.out_file_path == 'out.pkl'


def test_detections_are_dumped_with_short_masks():
    cfg = Config(dict(default_scope='mmdet', test_evaluator=dict(type='CocoMetric')))
    dump_predictions(cfg, 'out.pickle')
    assert [metric.type for metric in cfg.test_evaluator] == ['CocoMetric', 'DumpDetResults']


def test_label_maps():
    dataset = dict(data_root='root', data_prefix=dict(img_path='img'), img_suffix='.jpg')
    cfg = Config(
        dict(
            default_scope='mmseg',
            test_dataloader=dict(dataset=dataset),
            test_evaluator=[dict(type='IoUMetric')],
        )
    )
    write_label_maps(cfg, 'folder')
    metric, writer = cfg.test_evaluator
    assert metric == dict(type='IoUMetric')
    kind = 'attnpool_backbones.LabelMapWriter'
    assert writer == dict(type=kind, out_dir='folder', roots=['root/img'], suffix='.jpg')
    cfg.default_scope = 'mmdet'
    with pytest.raises(UserError, match=r'--out folder: .*\.pickle'):
        write_label_maps(cfg, 'folder')


def test_a_pickle_is_told_by_its_name():
    assert is_pickle('a/b.pkl') and is_pickle('c.pickle')
    assert not is_pickle('folder') and not is_pickle('folder.pkl/maps')


@pytest.mark.parametrize('task', ['mmdet', 'mmseg'])
def test_pictures(task, tmp_path):
    cfg = Config(dict(default_scope=task, default_hooks=dict(), visualizer=dict(type='Visualizer')))
    enable_pictures(cfg, show=False, show_dir=str(tmp_path), wait_time=2)
    hook = cfg.default_hooks.visualization
    assert hook.type == 'attnpool_backbones.PredictionPictureHook'
    assert hook.out_dir == str(tmp_path) and hook.show is False
    cfg.visualizer = None
    with pytest.raises(UserError, match='no visualizer'):
        enable_pictures(cfg, show=False, show_dir=str(tmp_path), wait_time=2)
