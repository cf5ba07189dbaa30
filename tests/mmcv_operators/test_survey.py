import json

import pytest

from attnpool_backbones.command_line import UserError
from attnpool_backbones.mmcv_operators import model_trial, survey

ROWS = [
    dict(library='mmdet', structure='a', config='one', configs=7, problem=''),
    dict(library='mmdet', structure='b', config='two', configs=2, problem='needs lap'),
    dict(library='mmdet', structure='c', config='three', configs=1, problem=survey.UNTRIED),
]


@pytest.fixture
def library(monkeypatch, tmp_path):
    """Two structures of three configs, of which one cannot be built."""
    paths = {name: tmp_path / f'{name}.py' for name in ('large_r101', 'a_r50', 'broken')}
    structures = {'x': [paths['large_r101'], paths['a_r50']], 'y': [paths['broken']]}
    tried = []

    def try_config(path, seconds):
        tried.append(path.stem)
        return 'needs lap' if path.stem == 'broken' else ''

    monkeypatch.setattr(survey, 'find_configs', lambda name: structures)
    monkeypatch.setattr(survey, 'try_config', try_config)
    return tried


def test_the_smallest_config_of_a_structure_is_tried_once(library, tmp_path):
    results, said = tmp_path / 'results.jsonl', []
    survey.try_structures('mmdet', results, said.append, limit=1)
    assert [row['problem'] for row in survey.read_results(results)] == ['', survey.UNTRIED]
    survey.try_structures('mmdet', results, said.append)
    survey.try_structures('mmdet', results, said.append)
    assert library == ['a_r50', 'broken']
    assert [row['configs'] for row in survey.read_results(results)] == [2, 1]
    assert said[1] == '[1/2] a_r50: runs'


def test_what_failed_for_a_reason_is_tried_again(library, tmp_path):
    results = tmp_path / 'results.jsonl'
    survey.try_structures('mmdet', results, print)
    survey.try_structures('mmdet', results, print, again='needs scipy')
    assert library == ['a_r50', 'broken']
    survey.try_structures('mmdet', results, print, again='needs (lap|scipy)')
    assert library == ['a_r50', 'broken', 'broken']
    assert [row['problem'] for row in survey.read_results(results)] == ['', 'needs lap']


def test_unknown_library(tmp_path):
    with pytest.raises(UserError, match="'mmpose', choose from"):
        survey.try_structures('mmpose', tmp_path / 'results.jsonl', print)


def test_report(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, '_version', lambda library: '3.3.0')
    text = survey.report(ROWS)
    assert '| mmdet 3.3.0 | 7 of 10 | 0 of 10 | 1 of 10 | 1 of 3 |' in text
    assert '| mmdet | 2 | needs lap | two |' in text
    page = tmp_path / 'page.md'
    page.write_text('<!-- models -->\n<!-- /models -->\n')
    survey.publish(page, text)
    assert text in page.read_text()


def test_types_make_a_structure():
    model = dict(
        type='Detector',
        backbone=dict(type='ResNet', depth=50, init_cfg=dict(type='Pretrained')),
        heads=[dict(type='Head', loss_cls=dict(type='Loss'))],
    )
    found = {f'{key}={kind}' for key, kind in survey._types(model, '')}
    assert found == {'=Detector', 'backbone=ResNet', 'heads=Head'}


def test_missing_modules_are_named():
    try:
        try:
            raise ModuleNotFoundError("No module named 'lap'", name='lap.extra')
        except ModuleNotFoundError as error:
            raise ImportError('could not import') from error
    except ImportError as error:
        assert model_trial._reason(error) == 'needs lap'
    assert model_trial._reason(RuntimeError('a\n  b')) == 'RuntimeError: a b'


def test_a_language_model_has_another_name_wherever_it_is_named():
    model = dict(language_model=dict(name='bert', layers=1), head=dict(deep=dict(lang='bert')))
    model_trial._rename(model, 'bert', 'folder')
    assert model['language_model'] == dict(name='folder', layers=1)
    assert model['head'] == dict(deep=dict(lang='folder'))


def test_the_size_that_a_config_crops_to_is_its_own():
    assert model_trial._own_sizes(dict(crop_size=[640, 480])) == [(640, 480)]
    assert model_trial._own_sizes(dict(model=dict())) == []


def test_results_are_lines_of_json(tmp_path):
    file = tmp_path / 'results.jsonl'
    survey.write_results(ROWS, file)
    assert [json.loads(line) for line in file.read_text().splitlines()] == ROWS
