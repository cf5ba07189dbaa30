"""Metafiles: what mim reads, every config, and the published numbers."""

import csv
from pathlib import Path

import pytest
import yaml

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.records import DATA_SETS
from attnpool_backbones.zoo.compared_models import read_compared_models
from attnpool_backbones.zoo.config_names import families, list_configs
from attnpool_backbones.zoo.config_sizes import Size
from attnpool_backbones.zoo.metafiles import (
    FILE_NAME,
    collection_of,
    complete_metafile,
    dump_metafile,
    read_metafile,
    record_measurement,
)
from attnpool_backbones.zoo.sources import read_sources

ROOT = Path(__file__).parents[2]
CONFIGS = list_configs(ROOT / 'configs')
FAMILIES = families(ROOT / 'configs')
PUBLISHED = ROOT / 'tests' / 'data' / 'published_dense.csv'
LABELS = {'1x': '1x', '3x': 'ms-3x', '24': '2x', '20': '20e', '40k': '40k', '160k': '160k'}
"""Beginning of a published schedule -> that of a config; without one it is not stated."""
BACKBONES = {'Swin-T': 'swin-tiny', **{f'ResNet-{d}': f'resnet{d}' for d in (18, 50, 101)}}
NAMES = {config.backbone for config in CONFIGS}
SOURCES = read_sources(ROOT / 'configs')
SIZE = Size(parameters=1, macs=2, height=3, width=4)


def metafile(family: str) -> dict:
    return read_metafile(ROOT / 'configs' / family / FILE_NAME)


def all_models() -> dict[str, dict]:
    """Returns path of a config -> its model."""
    models = [model for family in FAMILIES for model in metafile(family)['Models']]
    return {model['Config']: model for model in models}


def published_rows() -> list[dict[str, str]]:
    with PUBLISHED.open(newline='', encoding='utf-8') as lines:
        return list(csv.DictReader(lines))


def config_of(row: dict[str, str]) -> str | None:
    """Returns the config of a published row, if there is one."""
    model = row['model'].rstrip('*')
    backbone = BACKBONES.get(model, model.lower().replace('-resnet-', '-resnet'))
    if row['pretrain'] == 'imagenet-1k' and f'{backbone}-in1k-pre' in NAMES:
        backbone += '-in1k-pre'
    label = LABELS.get(row['schedule'].replace(',', '').partition(' ')[0])
    found = [
        f'configs/{config.path}'
        for config in CONFIGS
        if (config.backbone, config.head) == (backbone, row['head'])
        and (config.schedule == label or not row['schedule'])
    ]
    assert len(found) <= 1, row
    return found[0] if found else None


def test_index_imports_every_family():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert index == {'Import': [f'configs/{family}/{FILE_NAME}' for family in FAMILIES]}
    assert {path.parent.name for path in (ROOT / 'configs').glob(f'*/{FILE_NAME}')} == set(FAMILIES)


@pytest.mark.parametrize('family', FAMILIES)
def test_mim_finds_what_it_needs(family):
    content = metafile(family)
    for collection in content['Collections']:
        assert collection['Paper']['URL'].startswith('https://arxiv.org/abs/')
        assert collection['Paper']['Title']
        assert collection['README'] == f'configs/{family}/README.md'
        code = collection['Code']
        assert isinstance(code, dict) or (ROOT / code).is_file()
        # mim joins the entries of a list
        assert all(isinstance(x, str) for x in collection['Metadata']['Architecture'])
    collections = {collection['Name'] for collection in content['Collections']}
    assert {model['In Collection'] for model in content['Models']} == collections
    for model in content['Models']:
        assert model['Name'] == Path(model['Config']).stem
        metadata = model['Metadata']
        assert metadata['Parameters'] > 0 and metadata['MACs'] > 0
        assert metadata['Training Data'] in {data_set.name for data_set in DATA_SETS.values()}
        assert model['Results']
        for result in model['Results']:
            assert set(result) == {'Task', 'Dataset', 'Metrics'}
            assert isinstance(result['Metrics'], dict)
            assert result['Dataset'] == metadata['Training Data']


@pytest.mark.parametrize('family', FAMILIES)
def test_every_config_is_listed_once(family):
    listed = [model['Config'] for model in metafile(family)['Models']]
    assert sorted(listed) == sorted(
        f'configs/{family}/{path.name}' for path in (ROOT / 'configs' / family).glob('*.py')
    )


def test_names_are_unique():
    assert len({Path(config).stem for config in all_models()}) == len(CONFIGS)


def test_measured_numbers_have_a_command_and_a_machine():
    for config, model in all_models().items():
        if any(result['Metrics'] for result in model['Results']) or 'Measurement' in model:
            assert {'Command', 'Machine'} <= set(model['Measurement']), config


def test_published_numbers_are_those_of_the_reference():
    stated = set()
    for config, model in all_models().items():
        for entry in model.get('Published', []):
            assert entry['Status'] in ('published', 'unverified')
            about = (entry['Source'], entry['Status'], entry.get('Schedule', ''),
                     entry.get('Pretraining', ''))  # fmt: skip
            facts = [(config, *about, *metric) for metric in entry['Metrics'].items()]
            assert not stated.intersection(facts)
            stated.update(facts)
    # What a source says after a semicolon is about parameters.
    expected = {
        (config, row['source'].partition(';')[0], row['status'], row['schedule'],
         row['pretrain'], row['metric'], float(row['value']))
        for row in published_rows()
        if (config := config_of(row))
    }  # fmt: skip
    assert len(expected) > 200
    assert stated == expected


def test_every_published_model_of_ours_has_a_config():
    without = {row['model'] for row in published_rows() if config_of(row) is None}
    ours = {row['model'] for row in published_rows() if row['family'] != 'baseline'}
    assert not without & ours


def test_macs_are_those_of_publications():
    models, compared = all_models(), 0
    for row in published_rows():
        config = config_of(row)
        if config and row['flops_g'] and 'backbone' not in row['source']:
            macs = models[config]['Metadata']['MACs'] / 1e9
            assert macs == pytest.approx(float(row['flops_g']), rel=2e-3), row
            compared += 1
    assert compared > 20


def test_compared_models_are_those_of_the_reference():
    stated = {
        (other.title.partition(' ')[0], other.name.partition('_')[0], metric, value)
        for family in FAMILIES
        for other in read_compared_models(ROOT / 'configs' / family, SOURCES)
        for metric, value in other.metrics.items()
    }
    expected = {
        (row['model'], row['head'], row['metric'], float(row['value']))
        for row in published_rows()
        if row['model'].startswith('XCiT')
    }
    assert stated == expected and len(expected) == 32


@pytest.mark.parametrize(
    ('text', 'message'), [('- Name: a', "lacks 'Title'"), (': :\n:', 'cannot be read')]
)
def test_a_malformed_list_of_compared_models_is_named(text, message, tmp_path):
    (tmp_path / 'compared.yml').write_text(text)
    with pytest.raises(UserError, match=f'compared.yml.*{message}'):
        read_compared_models(tmp_path, SOURCES)
    assert read_compared_models(tmp_path / 'elsewhere', SOURCES) == []


def test_completion_keeps_facts_and_drops_the_rest():
    family = FAMILIES[0]
    first, second, third = [config.stem for config in CONFIGS if config.family == family][:3]
    published = [dict(Source='a paper', Status='published', Metrics={'mIoU': 50.0})]
    results = [dict(Task='Object Detection', Dataset='COCO', Metrics={'bbox_mAP': 40.0})]
    measurement = dict(Command='a command', Machine='a machine')
    content = {
        'Collections': metafile(family)['Collections'],
        'Models': [
            {'Name': second, 'Results': results, 'Measurement': measurement, 'Config': 'wrong'},
            {'Name': first, 'Published': published},
            {'Name': 'a config that was removed', 'Published': []},
        ],
    }
    counted = []

    def measure(config):
        counted.append(config)
        return SIZE

    whole = complete_metafile(ROOT / 'configs', family, content, measure)
    assert len(counted) == len(whole['Models'])
    # known models stay where they are, new ones follow by name
    assert [model['Name'] for model in whole['Models'][:3]] == [second, first, third]
    assert whole['Models'][1]['Published'] == published
    assert whole['Models'][0]['Results'] == results
    assert whole['Models'][0]['Measurement'] == measurement
    assert whole['Models'][0]['Config'] == f'configs/{family}/{second}.py'
    assert whole['Models'][0]['Metadata']['MACs Input'] == '3x4'
    assert 'a config that was removed' not in dump_metafile(whole)

    stored = yaml.safe_load(dump_metafile(whole))
    again = complete_metafile(ROOT / 'configs', family, stored, lambda config: 1 / 0)
    assert again == whole


def test_facts_about_nothing_are_refused():
    content = metafile(FAMILIES[0])
    fact = dict(Source='a paper', Status='published', Metrics={'mIoU': 50.0})
    content['Models'].append({'Name': 'upernet_nothing', 'Published': [fact]})
    with pytest.raises(UserError, match='has results of upernet_nothing, but there is no such'):
        complete_metafile(ROOT / 'configs', FAMILIES[0], content, lambda config: SIZE)


def test_longest_collection_wins_and_none_is_named():
    config = next(config for config in CONFIGS if config.backbone == 'sge-resnet50')
    names = [{'Name': name} for name in ('SGE', 'SGE-ResNet', 'SE-ResNet')]
    assert collection_of(config, names) == 'SGE-ResNet'
    with pytest.raises(UserError, match='no collection for sge-resnet50; there are SE-ResNet'):
        collection_of(config, names[2:])


@pytest.mark.parametrize(
    'text', ['Models: []', 'Collections: []\nModels: [{}]', '- a', ': :\n:'], ids=str
)
def test_a_malformed_metafile_is_named(text, tmp_path):
    path = tmp_path / FILE_NAME
    path.write_text(text)
    with pytest.raises(UserError, match=FILE_NAME):
        read_metafile(path)


@pytest.mark.parametrize(
    ('name', 'metric', 'answer'),
    [
        ('mask-rcnn_nothing', 'bbox_mAP', 'no config mask-rcnn_nothing'),
        ('upernet_coatnet-nano_slim_digit-scenes', 'bbox_mAP', 'no result for bbox_mAP'),
        ('upernet_coatnet-nano_slim_digit-scenes', 'mAcc', 'no result for mAcc'),
    ],
)
def test_a_measurement_of_something_else_is_refused(name, metric, answer):
    with pytest.raises(UserError, match=answer):
        record_measurement(ROOT, name, {metric: 1.0}, {})
