import argparse
import json
import os
from pathlib import Path

import pytest

from attnpool_backbones.analysis.trade_off import (
    draw,
    pareto_front,
    published_rows,
    row_of_run,
    rows_of_table,
)
from attnpool_backbones.cli import main
from attnpool_backbones.command_line import UserError

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / 'docs' / 'benchmark' / 'results.csv'
RUN = 'upernet_sge-resnet-nano_slim_digit-scenes'


def _beaten(point, points):
    return any(other != point and other[0] <= point[0] and other[1] >= point[1] for other in points)


@pytest.mark.parametrize('seed', range(5))
def test_front_is_what_nothing_beats(seed):
    import random

    generator = random.Random(seed)
    points = [(generator.randint(0, 9), generator.randint(0, 9)) for _ in range(25)]
    front = pareto_front(points)
    assert {points[i] for i in front} == {p for p in points if not _beaten(p, points)}
    assert [points[i][0] for i in front] == sorted({points[i][0] for i in front})


def test_table():
    rows = {row.name: row for row in rows_of_table(TABLE, 'bbox_mAP')}
    nano = rows['resnet-nano']
    assert nano.origin == 'measured' and nano.accuracy == 64.0
    assert nano.costs['parameters (M)'] == pytest.approx(1.283581)
    assert nano.costs['time (ms)'] == pytest.approx(1000 / 23.043323430735068)
    with pytest.raises(UserError, match='no column mAP; it has backbone, bbox_mAP'):
        rows_of_table(TABLE, 'mAP')


def test_published_numbers_name_their_source():
    rows = published_rows('retinanet_poolformer-s*_coco', 'bbox_mAP')
    (small,) = [row for row in rows if row.name == 'retinanet_poolformer-s12_fpn_1x_coco']
    assert small.accuracy == 36.2 and small.origin.startswith('paper Table 3')
    with pytest.raises(UserError, match='no config of such a name'):
        published_rows('nothing*', 'bbox_mAP')


def test_models_without_a_config_are_compared_too():
    rows = {row.name: row for row in published_rows('upernet_*_ade20k-512x512', 'mIoU')}
    other = rows['upernet_xcit-s24-16_8xb2-160k_ade20k-512x512']
    assert other.accuracy == 46.9 and other.origin == 'README (xcit, segmentation)'
    assert other.costs == {'parameters (M)': 80}
    assert 'upernet_patchconvnet-s60_8xb2-160k_ade20k-512x512' in rows


def test_run(tmp_path):
    pytest.importorskip('mmseg')
    folder = tmp_path / 'run'
    (folder / '1' / 'vis_data').mkdir(parents=True)
    lines = [
        dict(loss=1.0, accuracy=99.0, step=1),
        dict(mIoU=12.5, step=1),
        dict(mIoU=11.0, step=2),
    ]
    text = '\n'.join(map(json.dumps, lines))
    (folder / '1' / 'vis_data' / 'scalars.json').write_text(text)
    with pytest.raises(UserError, match='no validation with bbox_mAP, but mIoU, step'):
        row_of_run(folder, 'bbox_mAP', (64, 64))
    with pytest.raises(UserError, match='no validation with accuracy'):
        row_of_run(folder, 'accuracy', (64, 64))
    with pytest.raises(UserError, match='no config'):
        row_of_run(folder, 'mIoU', (64, 64))
    config = ROOT / 'configs' / 'attn_resnet' / f'{RUN}.py'
    (folder / 'config.py').write_text(f"_base_ = '{config}'\n")
    small, large = (row_of_run(folder, 'mIoU', (side, side)) for side in (64, 128))
    assert small.accuracy == 12.5 and small.origin == 'measured'
    assert large.costs['parameters (M)'] == small.costs['parameters (M)'] > 0
    assert large.costs['MACs (G)'] > 3 * small.costs['MACs (G)']


def save_run(folder, name):
    """Writes a run of a segmentor, whose config has a name."""
    logs = folder / '1' / 'vis_data'
    logs.mkdir(parents=True)
    (logs / 'scalars.json').write_text('{"mIoU": 12.5}')
    config = ROOT / 'configs' / 'attn_resnet' / f'{RUN}.py'
    (folder / f'{name}.py').write_text(f"_base_ = '{config}'\n")
    return str(folder)


def options(sources, published=(), **values):
    """Returns arguments as the command line gives them."""
    given = dict(sources=sources, published=published, metric='mIoU', input=None)
    return argparse.Namespace(**given | values)


@pytest.mark.parametrize(
    ('name', 'published', 'given', 'size'),
    [
        (RUN, (), None, '192x192'),
        ('config', (), None, '800x1344'),
        (RUN, (), (64, 96), '64x96'),
        (RUN, (), 64, '64x64'),
        (RUN, ('semantic-fpn_poolformer-s*',), None, '512x2048'),
        (RUN, ('semantic-fpn_poolformer-s*',), (512, 2048), '512x2048'),
    ],
)
def test_macs_of_a_run_are_those_of_the_images_that_it_is_compared_on(
    name, published, given, size, tmp_path
):
    pytest.importorskip('mmseg')
    folder = save_run(tmp_path / 'run', name)
    drawing = draw(options([folder], published, input=given))
    assert {row['macs_input'] for row in drawing.numbers['rows']} == {size}
    assert f'MACs (G) at {size}' in [axes.get_xlabel() for axes in drawing.figure.axes]
    assert 'several sizes' not in drawing.reading
    sides = tuple(map(int, size.split('x')))
    (alone,) = [row for row in drawing.numbers['rows'] if row['name'] == 'run']
    assert alone['costs'] == row_of_run(Path(folder), 'mIoU', sides).costs


def test_several_sizes_of_image_are_told(tmp_path):
    pytest.importorskip('mmseg')
    folder = save_run(tmp_path / 'run', RUN)
    drawing = draw(options([folder], ['semantic-fpn_poolformer-s12*'], input=(64, 64)))
    assert drawing.reading.endswith('compare them within one size.')
    (label,) = [a.get_xlabel() for a in drawing.figure.axes if 'MACs' in a.get_xlabel()]
    assert label == 'MACs (G) at 512x2048, 64x64'
    names = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert names[0] == '1  run, MACs at 64x64'
    assert all(name.endswith(', MACs at 512x2048') for name in names[1:]) and len(names) > 1
    table = draw(options([str(TABLE), folder]))
    assert table.reading.endswith('compare them within one size.')
    (label,) = [a.get_xlabel() for a in table.figure.axes if 'MACs' in a.get_xlabel()]
    assert label == 'MACs (G) at 192x192, size not told'


@pytest.mark.parametrize(
    'metric, scalars, accuracy',
    [
        ('bbox_mAP', {'coco/bbox_mAP': 0.425}, 42.5),
        ('mAP', {'pascal_voc/mAP': 0.55, 'pascal_voc/AP50': 0.6}, 55),
        ('mIoU', {'mIoU': 62.5, 'tags/mAP': 80.0}, 62.5),
        ('mAP', {'mIoU': 62.5, 'tags/mAP': 80.0}, 80),
        ('mIoU', {'city/mIoU': 62.5}, 62.5),
        ('pointing', {'localisation/pointing': 70.0}, 70),
        ('pascal_voc/mAP', {'pascal_voc/mAP': 0.55, 'tags/mAP': 80.0}, 55),
        ('tags/mAP', {'pascal_voc/mAP': 0.55, 'tags/mAP': 80.0}, 80),
        ('mAP', {'pascal_voc/mAP': 0.55, 'tags/mAP': 80.0}, None),
    ],
)
def test_metrics_of_a_run_are_percentages(metric, scalars, accuracy, tmp_path):
    pytest.importorskip('mmseg')
    logs = tmp_path / '1' / 'vis_data'
    logs.mkdir(parents=True)
    (logs / 'scalars.json').write_text(json.dumps(scalars))
    config = ROOT / 'configs' / 'attn_resnet' / f'{RUN}.py'
    (tmp_path / 'config.py').write_text(f"_base_ = '{config}'\n")
    if accuracy is None:
        with pytest.raises(UserError, match='--metric mAP may be pascal_voc/mAP or tags/mAP'):
            row_of_run(tmp_path, metric, (64, 64))
    else:
        assert row_of_run(tmp_path, metric, (64, 64)).accuracy == pytest.approx(accuracy)


def test_the_config_of_a_run_is_the_one_written_last(tmp_path):
    pytest.importorskip('mmseg')
    logs = tmp_path / '1' / 'vis_data'
    logs.mkdir(parents=True)
    (logs / 'scalars.json').write_text('{"mIoU": 12.5}')
    (tmp_path / 'z.py').write_text("model = dict(type='none')\n")
    os.utime(tmp_path / 'z.py', (10**9, 10**9))
    config = ROOT / 'configs' / 'attn_resnet' / f'{RUN}.py'
    (tmp_path / 'config.py').write_text(f"_base_ = '{config}'\n")
    assert row_of_run(tmp_path, 'mIoU', (64, 64)).costs['MACs (G)'] > 0


@pytest.mark.parametrize('cut', [b'{"mIoU": 99.', b'{"mIoU": 99.0, "\xc3', b'9', b'\0\0'])
def test_the_last_line_of_a_killed_run_does_not_count(cut, tmp_path):
    pytest.importorskip('mmseg')
    logs = tmp_path / '1' / 'vis_data'
    logs.mkdir(parents=True)
    config = ROOT / 'configs' / 'attn_resnet' / f'{RUN}.py'
    (tmp_path / 'config.py').write_text(f"_base_ = '{config}'\n")
    (logs / 'scalars.json').write_bytes(b'{"mIoU": 12.5}\n' + cut)
    assert row_of_run(tmp_path, 'mIoU', (64, 64)).accuracy == 12.5
    (logs / 'scalars.json').write_bytes(cut + b'\n{"mIoU": 12.5}\n')
    with pytest.raises(UserError, match=r'scalars\.json, line 1: '):
        row_of_run(tmp_path, 'mIoU', (64, 64))


def test_run_of_a_classifier(tmp_path):
    (tmp_path / '1' / 'vis_data').mkdir(parents=True)
    (tmp_path / '1' / 'vis_data' / 'scalars.json').write_text('{"accuracy/top1": 12.5}')
    config = ROOT / 'configs' / 'classification' / 'sge-resnet50_in1k.py'
    (tmp_path / 'config.py').write_text(f"_base_ = '{config}'\n")
    with pytest.raises(UserError, match='not of attnpool_backbones.ImageClassifier'):
        row_of_run(tmp_path, 'top1', (64, 64))


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        (['a,1,2,', 'b,3,,4'], 'no two of a, b have one of parameters'),
        (['a,1,,'], 'a has none of parameters'),
    ],
)
def test_rows_without_a_cost_in_common(lines, message, tmp_path, capsys):
    table = tmp_path / 'table.csv'
    table.write_text('\n'.join(['model,mIoU,parameters (M),MACs (G)', *lines]))
    words = ['figure', 'trade-off', str(table), '--metric', 'mIoU', '--out', str(tmp_path)]
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_command(tmp_path, capsys):
    words = ['figure', 'trade-off', str(TABLE), '--published', 'retinanet_poolformer-s*_coco']
    assert main([*words, '--out', str(tmp_path)]) == 0
    numbers = json.loads((tmp_path / 'trade-off.json').read_text())
    assert len({row['origin'] for row in numbers['rows']}) > 1
    assert (
        'memory (MiB)' in numbers['fronts'] and (tmp_path / 'trade-off.png').stat().st_size > 9999
    )
    assert main(['figure', 'trade-off', '--out', str(tmp_path)]) == 2
    assert 'nothing to draw' in capsys.readouterr().err


def test_numbers_of_near_points_can_be_read(tmp_path):
    places = [(10, 40), (10, 40), (10.2, 40.2), (10.4, 40.5), (30, 20)]
    lines = [f'model-{i},{y},{x}' for i, (x, y) in enumerate(places)]
    table = tmp_path / 'table.csv'
    table.write_text('\n'.join(['model,mIoU,parameters (M)', *lines]))
    figure = draw(options([str(table)])).figure
    figure.draw_without_rendering()
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == ['1, 2', '3', '4', '5']
    boxes = [text.get_window_extent() for text in texts]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        middles = figure.axes[0].transData.transform(places)
        assert not any(box.contains(*middle) for middle in middles)
