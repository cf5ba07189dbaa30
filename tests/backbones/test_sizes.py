"""Parameters equal the reference exactly, multiply-accumulates within 1 %."""

import csv
import pathlib

import pytest
import torch

from attnpool_backbones.registry import MODELS
from attnpool_backbones.zoo.complexity import count_macs, count_parameters
from tests.backbones.families import SIZES

with open(pathlib.Path(__file__).parents[1] / 'data' / 'model_sizes.csv', newline='') as _file:
    ROWS = list(csv.DictReader(_file))

CASES = [
    pytest.param(
        row,
        size,
        id=f'{row["model"]}-{row["scope"]}-{row["input"] or "params"}',
        marks=[pytest.mark.slow] if size.slow else [],
    )  # fmt: skip
    for size in SIZES
    for row in ROWS
    if row['model'] == size.model and size.input in (None, row['input'])
]


def forward_macs(model, input_size):
    """Returns 1e9 multiply-accumulates of convolutions and matrix products."""
    x = torch.zeros(1, 3, *input_size, device='meta')
    if getattr(model, 'pool', None) is None:
        return count_macs(lambda: model(x)) / 1e9
    return count_macs(lambda: model.forward_pooled(x, return_maps=False)) / 1e9


@pytest.mark.parametrize(('row', 'size'), CASES)
def test_size(row, size):
    classifier = row['scope'] == 'classifier_1000'
    config = size.config if classifier else size.backbone_config or size.config
    with torch.device('meta'):
        model = MODELS.build(dict(config)).eval()

    params = count_parameters(model) + classifier * size.head_params
    assert params == int(row['params'])
    if row['macs_g'] and row['input']:
        input_size = tuple(int(side) for side in row['input'].split('x'))
        macs = (size.count_macs or forward_macs)(model, input_size)
        macs += classifier * size.head_macs
        assert macs == pytest.approx(float(row['macs_g']), rel=0.01)


def test_every_model_is_checked():
    assert {row['model'] for row in ROWS} == {size.model for size in SIZES}
