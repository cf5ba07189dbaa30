"""What may be shown of the numbers of others: each has a place and a date, or stays unseen."""

import datetime
from pathlib import Path

import pytest
import yaml

from attnpool_backbones.command_line import UserError
from attnpool_backbones.zoo.compared_models import read_compared_models
from attnpool_backbones.zoo.config_names import families
from attnpool_backbones.zoo.metafiles import FILE_NAME, read_metafile
from attnpool_backbones.zoo.sources import read_sources, shown_entries

CONFIGS = Path(__file__).parents[2] / 'configs'
SOURCES = read_sources(CONFIGS)
MODELS = [
    model
    for family in families(CONFIGS)
    for model in read_metafile(CONFIGS / family / FILE_NAME)['Models']
]
ENTRIES = [(model['Name'], entry) for model in MODELS for entry in model.get('Published', [])]
PAGES = [*CONFIGS.rglob('*.md'), *CONFIGS.parent.glob('*.md'), *CONFIGS.parent.glob('docs/**/*.md')]


def test_every_published_row_has_source_place_and_date():
    published = [(name, entry) for name, entry in ENTRIES if entry['Status'] == 'published']
    assert len(published) > 100
    today = datetime.date.today().isoformat()
    for name, entry in published:
        source = SOURCES[entry['Source']]
        assert source.place.startswith('https://') and '2015' < source.date <= today, name
        assert 'memory' not in source.name, name
    compared = [m for f in families(CONFIGS) for m in read_compared_models(CONFIGS / f, SOURCES)]
    named = {entry['Source'] for _, entry in published} | {m.source.name for m in compared}
    assert set(SOURCES) == named


def test_what_is_only_remembered_is_kept_and_not_shown():
    remembered = [(name, entry) for name, entry in ENTRIES if entry['Status'] != 'published']
    assert {entry['Source'] for _, entry in remembered} == {'unverified: from memory'}
    rows = [line for page in PAGES for line in page.read_text().splitlines() if line[:2] == '| ']
    compared = 0
    for name, entry in remembered:
        model = next(model for model in MODELS if model['Name'] == name)
        seen = {value for _, metrics in shown_entries(model, SOURCES) for value in metrics.values()}
        for line in (line for line in rows if f'{name}.py' in line):
            cells = {cell.strip(' ,') for cell in line.replace(',', ' ').split()}
            assert not {str(v) for v in entry['Metrics'].values() if v not in seen} & cells, line
            compared += 1
    assert compared >= len({name for name, _ in remembered})
    for page in PAGES:
        if page.name not in ('CONTRIBUTING.md', 'CHANGELOG.md'):
            text = page.read_text()
            assert '(unverified' not in text and 'from memory' not in text, page


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(Place='https://a.b'), "Date of 'a paper' is '', not YYYY-MM"),
        (dict(Place='https://a.b', Date='lately'), "Date of 'a paper' is 'lately'"),
        (dict(Date='2020-01'), "Place of 'a paper' is '', not https"),
    ],
)
def test_a_source_without_place_or_date_is_refused(fields, message, tmp_path):
    (tmp_path / 'sources.yml').write_text(yaml.safe_dump({'a paper': fields}))
    with pytest.raises(UserError, match=message):
        read_sources(tmp_path)


def test_numbers_of_an_unknown_source_are_refused():
    entry = dict(Source='a rumour', Status='published', Metrics={'mIoU': 99.0})
    with pytest.raises(UserError, match="numbers of 'a rumour', of which configs/sources.yml"):
        shown_entries(dict(Name='upernet_x', Published=[entry]), SOURCES)
    assert (
        shown_entries(dict(Name='upernet_x', Published=[dict(entry, Status='unverified')]), {})
        == []
    )
