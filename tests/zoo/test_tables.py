"""Tables of all configs: up to date, with the sizes of the models, and readable."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attnpool_backbones.command_line import UserError
from attnpool_backbones.zoo import tables as zoo_tables
from attnpool_backbones.zoo.config_names import ConfigName, config_name, families, list_configs
from attnpool_backbones.zoo.config_sizes import measure_size
from attnpool_backbones.zoo.metafiles import FILE_NAME, read_metafile
from attnpool_backbones.zoo.sources import read_sources, shown_entries
from attnpool_backbones.zoo.tables import (
    Output,
    Row,
    family_tables,
    main_table,
    title,
    trainings_table,
)

ROOT = Path(__file__).parents[2]
CONFIGS = list_configs(ROOT / 'configs')
SOURCES = read_sources(ROOT / 'configs')
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    ROOT / 'configs' / '_base_' / 'backbones' / 'README.md',
    *sorted((ROOT / 'docs').rglob('*.md')),
    *(ROOT / 'configs' / family / 'README.md' for family in families(ROOT / 'configs')),
]
LINK = re.compile(r'\]\(([^)#\s]+)(?:#[^)\s]*)?\)')
COUNTED = (
    'poolformer/retinanet_poolformer-s24_fpn_1x_coco.py',
    'attn_resnet/cascade-mask-rcnn_sge-resnet50_fpn_20e_coco.py',
    'coatnet/upernet_coatnet-nano_slim_digit-scenes.py',
)
"""Counted in every run of the tests: a detector and a segmentor; the others take minutes."""


def stored(config: ConfigName) -> dict:
    models = read_metafile(ROOT / 'configs' / config.family / FILE_NAME)['Models']
    return next(model for model in models if model['Name'] == config.stem)


def row_of(path: str, **facts) -> Row:
    config = config_name(path)
    return make_row(config, {**stored(config), **facts})


def make_row(config: ConfigName, model: dict) -> Row:
    return Row(config, model, shown_entries(model, SOURCES))


def test_nothing_is_stale(monkeypatch):
    monkeypatch.setattr(zoo_tables, 'measure_size', lambda config: pytest.fail(f'{config} is new'))
    stale = [str(o.path) for o in zoo_tables.make_outputs(ROOT) if not o.is_current()]
    assert not stale, 'call python tools/analysis_tools/make_tables.py'


@pytest.mark.parametrize(
    'config',
    [
        pytest.param(c, marks=() if c.path in COUNTED else pytest.mark.slow, id=c.path[:-3])
        for c in CONFIGS
    ],
)
def test_sizes_are_those_of_the_models(config):
    metadata = stored(config)['Metadata']
    size = measure_size(ROOT / 'configs' / config.path)
    assert (size.parameters, size.macs) == (metadata['Parameters'], metadata['MACs'])
    assert f'{size.height}x{size.width}' == metadata['MACs Input']


def test_a_name_without_data_set_is_refused(tmp_path):
    with pytest.raises(UserError, match='mask-rcnn_x.py is no name of a config.*one of coco, ade'):
        measure_size(tmp_path / 'mask-rcnn_x.py')


@pytest.mark.parametrize(
    ('config', 'name'),
    [
        ('poolformer/retinanet_poolformer-s24_fpn_1x_coco.py', 'PoolFormer-S24 RetinaNet 1x'),
        (
            'attn_resnet/cascade-rcnn_sge-resnet101_fpn_20e_coco.py',
            'SGE-ResNet-101 Cascade R-CNN 20e',
        ),
        ('deepvit/upernet_deepvit-s_8xb2-160k_ade20k-512x512.py', 'DeepViT-S UperNet 160k'),
        (
            'coatnet/mask-rcnn_coatnet-rmlp-2-rw_fpn_ms-3x_coco.py',
            'CoAtNet-rmlp-2-rw Mask R-CNN ms-3x',
        ),
        ('baselines/mask-rcnn_swin-nano_slim-fpn_digit-scenes.py', 'Swin-nano Mask R-CNN'),
    ],
)
def test_a_config_is_found_by_its_name(config, name):
    assert title(row_of(config)) == name
    page = (ROOT / 'configs' / config).parent / 'README.md'
    assert f'| [{name}]({Path(config).name}) |' in page.read_text()


def test_published_and_measured_never_share_a_cell():
    config = 'patchconvnet/mask-rcnn_patchconvnet-s60_fpn_ms-3x_coco.py'
    results = [dict(Task='Object Detection', Dataset='COCO', Metrics={'bbox_mAP': 45.5})]
    measurement = {'Command': 'c', 'Machine': '8 x GPU', 'Images per second': 20.0}
    row = row_of(config, Results=results, Measurement=measurement)
    line = next(x for x in family_tables([row]).splitlines() if config.split('/')[1] in x)
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    # no memory was measured, so there is no such column
    assert cells[3:] == ['box 46.4', SOURCES['leaderboard'].link, 'box 45.5', '20.0', '8 x GPU']


def test_columns_that_are_empty_everywhere_are_left_out():
    text = family_tables([make_row(c, stored(c)) for c in CONFIGS if c.family == 'deepvit'])
    headers = [line for line in text.splitlines() if line.startswith('| config')]
    nothing, measured = (
        '| config | parameters | MACs |',
        ' measured | images/s | memory | machine |',
    )
    assert headers == [nothing, nothing, nothing + measured]


def test_one_config_trained_by_several():
    rows = [make_row(c, stored(c)) for c in CONFIGS if c.family == 'poolformer']
    header, _, *lines = (
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in trainings_table(rows).splitlines()
    )
    columns = [re.sub(r'\[(.*)\]\(.*\), .*', r'\1', cell) for cell in header]
    table = [dict(zip(columns, line, strict=True)) for line in lines]
    rounded = "mmseg's training, sides that are multiples of 32"
    first, corrected = 'as first printed, corrected in 2022-10', 'the same, sides as they are'
    assert [
        (row['mIoU of'], *(float(row[c]) for c in ('the paper', first, rounded))) for row in table
    ] == [
        ('PoolFormer-S12 Semantic FPN 40k', 37.2, 36.0, 37.07),
        ('PoolFormer-S24 Semantic FPN 40k', 40.3, 39.35, 40.36),
        ('PoolFormer-S36 Semantic FPN 40k', 42.0, 40.64, 41.81),
        ('PoolFormer-M36 Semantic FPN 40k', 42.4, 40.91, 42.35),
        ('PoolFormer-M48 Semantic FPN 40k', 42.7, 41.82, 42.76),
    ]
    assert table[0][corrected] == '36.68'
    assert table[0]['mmseg 1.x, multiples of 32'] == '36.45 (36.06 to 36.95, 5 runs)'
    assert trainings_table(rows[:3]) == ''


def test_main_table_has_the_best_published_config_of_each_head():
    rows = [make_row(c, stored(c)) for c in CONFIGS if c.family in ('poolformer', 'coatnet')]
    lines = [line for line in main_table(rows).splitlines() if line.startswith('| [')]
    pairs = {(r.config.family, r.config.head) for r in rows}
    assert len(lines) == len(pairs)
    text = '\n'.join(lines)
    assert 'PoolFormer-S36 RetinaNet' in text and 'PoolFormer-M48 Semantic FPN' in text
    assert 'PoolFormer-S12 UperNet' in text and 'digit-scenes' not in text


def test_the_readme_is_short():
    text = (ROOT / 'README.md').read_text()
    assert len(text.splitlines()) <= 120
    measured = text.split('<!-- quickstart -->')[1].split('<!-- /quickstart -->')[0]
    assert 1 <= len(measured.strip().splitlines()) - 2 <= 10


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page):
    for target in LINK.findall(page.read_text()):
        if not target.startswith(('http://', 'https://')):
            assert (page.parent / target).exists(), target


def test_output_knows_whether_it_is_current(tmp_path):
    page = tmp_path / 'page.md'
    output = Output(page, 'new\n', 'configs')
    assert not output.is_current()
    page.write_text('before\n')
    with pytest.raises(UserError, match=r'page\.md lacks the lines'):
        output.write()
    page.write_text('before\n<!-- configs -->\nold\n<!-- /configs -->\nafter\n')
    assert not output.is_current()
    output.write()
    assert output.is_current()
    assert page.read_text() == 'before\n<!-- configs -->\nnew\n<!-- /configs -->\nafter\n'


def test_check_names_the_stale_file(tmp_path):
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    shutil.copy(ROOT / 'model-index.yml', tmp_path)
    (tmp_path / 'docs').mkdir()
    shutil.copy(ROOT / 'docs' / 'results.md', tmp_path / 'docs')
    page = tmp_path / 'configs' / 'poolformer' / 'README.md'
    before = page.read_text()
    page.write_text(before.replace('box 38.9', 'box 99.9'))

    def call(*flags):
        command = [sys.executable, ROOT / 'tools' / 'analysis_tools' / 'make_tables.py', *flags]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    checked = call('--check')
    assert checked.returncode == 2
    assert 'error: stale: configs/poolformer/README.md; call' in checked.stderr
    assert 'Traceback' not in checked.stderr
    written = call()
    assert written.returncode == 0 and 'wrote configs/poolformer/README.md' in written.stdout
    assert page.read_text() == before
