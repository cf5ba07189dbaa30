"""Exported files score on digit scenes what their models do, for every family under every head."""

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.experiments import exported_scores
from attnpool_backbones.experiments.exported_scores import (
    COLUMNS,
    SIDE,
    markdown,
    on_scenes,
    publish,
    quantise_row,
    run,
    score,
    trained,
)
from attnpool_backbones.experiments.nano_heads import FAMILIES, HEADS, nano_config
from tests.export.test_export import compare_file

SCENES = 32
"""On eight, one pixel of a mask at a threshold was 0.2 percent of a metric."""
STEPS = 150
NEAR = 0.1 + 1e-6
"""Percent that a metric of a file may differ by; COCO's come in steps of 0.1."""
LEAST = {'coco/bbox_mAP': 1.0, 'coco/segm_mAP': 1.0, 'mIoU': 30.0}
"""Percent below which a metric says nothing: background everywhere has an mIoU of 8, and segmentors
reach 42 and more."""
LOST = 1.0
"""Percent that a metric may lose by 8 bits."""


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp('metrics') / 'digit_scenes'
    generate(root, train=SCENES, val=1, size=SIDE)
    return root


@pytest.mark.slow
@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('family', FAMILIES)
def test_file_scores_what_the_model_does(family, head, scenes):
    cfg = on_scenes(nano_config(family, head), scenes)
    model = trained(cfg, STEPS)
    exported, _ = compare_file(cfg, model, only=(SIDE, SIDE))
    before, after = score(model, cfg), score(exported, cfg)
    assert before and all(before[key] >= LEAST[key] for key in before), before
    assert after == pytest.approx(before, abs=NEAR)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['poolformer/retinanet', 'caformer/mask-rcnn', 'caformer/upernet'])
def test_file_of_8_bits_scores_nearly_that(name, tmp_path):
    told = []
    (row,) = run(tmp_path, [name], ['trained', 'int8'], told.append)
    assert len(told) == 1 and row['onnx'] == pytest.approx(row['model'], abs=NEAR)
    assert row['lost'].keys() == row['model'].keys()
    assert max(sum(values) / len(values) for values in row['lost'].values()) <= LOST, row
    # done once, nothing is done again
    assert run(tmp_path, [name], ['trained', 'int8'], told.append) == [row] and len(told) == 1


def test_results_of_other_code_are_measured_anew(tmp_path, monkeypatch):
    done = []

    def stage(kind, **found):
        return lambda *_: done.append(kind) or found

    stages = dict(
        trained=stage('trained', name='resnet/upernet', model={'mIoU': 44.0}, onnx={'mIoU': 44.0}),
        int8=stage('int8', int8={'mIoU': 44.0}, lost={'mIoU': [0.0, 0.0]}),
        times=stage('times', seconds=[0.1, 0.1], machine='a machine'),
    )
    monkeypatch.setattr(exported_scores, 'STAGES', stages)
    monkeypatch.setattr(exported_scores, 'generate', lambda *_, **__: None)

    def call(code, *wanted):
        done.clear()
        monkeypatch.setattr(exported_scores, 'source_digest', lambda: code)
        rows = run(tmp_path, ['resnet/upernet'], wanted, lambda line: None)
        return list(done), [set(row) for row in rows]

    scores = {'name', 'model', 'onnx', 'int8', 'lost'}
    whole = scores | {'seconds', 'machine'}
    assert call('old', *stages) == ([*stages], [whole])
    assert call('old', *stages) == ([], [whole])
    assert call('new', 'trained', 'int8') == (['trained', 'int8'], [scores])
    assert call('new', *stages) == (['times'], [whole])
    # of a version that did not keep by which code it was measured
    (tmp_path / 'resnet' / 'upernet' / 'int8.json').write_text('{"int8": {}, "lost": {}}')
    assert call('new', *stages) == (['int8', 'times'], [whole])


def test_rows_without_files_are_told(tmp_path):
    with pytest.raises(UserError, match='no whole.onnx in it; remove the folder'):
        quantise_row('resnet/upernet', tmp_path, tmp_path)


def test_rows_that_are_not_measured_stay_on_the_page(tmp_path):
    page = tmp_path / 'export.md'
    page.write_text('<!-- scores -->\nold\n<!-- /scores -->\n')
    rows = [dict(name='resnet/upernet', model={'mIoU': 44.0}, onnx={'mIoU': 44.0})]
    with pytest.raises(UserError, match=r'39 of 40 rows are not measured .*caformer/retinanet, '):
        publish(rows, page)
    assert 'old' in page.read_text()


def test_table(tmp_path, monkeypatch):
    monkeypatch.setattr(exported_scores, 'ROWS', ('resnet/upernet', 'swin/mask-rcnn'))
    rows = [
        dict(
            name='resnet/upernet',
            model={'mIoU': 44.0},
            onnx={'mIoU': 43.96},
            int8={'mIoU': 45},
            lost={'mIoU': [-1, -1]},
        ),
        dict(
            name='swin/mask-rcnn',
            model={'coco/bbox_mAP': 60.0, 'coco/segm_mAP': 20.0},
            onnx={'coco/bbox_mAP': 60.0, 'coco/segm_mAP': 20.0},
            int8={'coco/bbox_mAP': 59.5, 'coco/segm_mAP': 19.25},
            lost={'coco/bbox_mAP': [0.5, 1.0], 'coco/segm_mAP': [0.25, 0.25]},
            seconds=[0.0125, 0.01],
            machine='2 cores of a machine',
        ),
    ]
    page = tmp_path / 'export.md'
    page.write_text('before\n<!-- scores -->\nold\n<!-- /scores -->\nafter\n')
    publish(rows, page)
    lines = page.read_text().splitlines()
    assert lines[:2] == ['before', '<!-- scores -->'] and lines[-1] == 'after'
    assert {line.count('|') for line in lines[2:6]} == {len(COLUMNS) + 1}
    assert lines[4] == '| upernet of resnet | mIoU | 44.0 | 44.0 | 45.0 | -1.0 ± 0.0 | - | - |'
    assert lines[5].endswith(
        '| 60.0 / 20.0 | 60.0 / 20.0 | 59.5 / 19.2 | 0.8 ± 0.2 / 0.2 ± 0.0 | 12.5 | 10.0 |'
    )
    assert markdown(rows).splitlines()[-1] == (
        'The most that a file lost: 0.04, with 8 bits 0.75. Times: 2 cores of a machine.'
    )


def test_no_such_row(tmp_path):
    with pytest.raises(UserError, match=r'--only swim/\*: no row; there are caformer/retinanet, '):
        run(tmp_path, ['swim/*'], [], print)
