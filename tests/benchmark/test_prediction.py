"""What is measured of a command that predicts on a folder is what the command does."""

import json
from dataclasses import replace

import pytest

from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.models import make_workload
from attnpool_backbones.command_line import UserError

CASE = Case(model='predict.nano-detector', size=(64, 64), batch=3)


def test_a_folder_and_the_model_alone():
    pytest.importorskip('mmdet')
    ours = make_workload(CASE, 'cpu')
    ours.run()
    assert len(list((ours.out / 'pictures').glob('*.jpg'))) == 3
    lines = [json.loads(line) for line in (ours.out / 'predictions.jsonl').open()]
    assert [len(line['objects']) for line in lines] == [10] * 3
    assert all('mask' in entry for line in lines for entry in line['objects'])
    alone = make_workload(replace(CASE, form='plain'), 'cpu')
    seen = []
    step = alone.predictor.model.test_step
    alone.predictor.model.test_step = lambda data: seen.append(len(data['inputs'])) or step(data)
    alone.run()
    assert seen == [1, 1, 1] and not alone.out.exists()


def test_unknown_model():
    with pytest.raises(UserError, match=r"unknown model 'predict\.x', choose from .*nano-detector"):
        make_workload(replace(CASE, model='predict.x'), 'cpu')
