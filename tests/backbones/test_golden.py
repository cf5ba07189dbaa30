"""Outputs equal those of the official code, through a checkpoint in the official format."""

import numpy as np
import pytest
import torch

from attnpool_backbones.checkpoints import load_pretrained
from attnpool_backbones.registry import MODELS
from tests.backbones.families import GOLDEN
from tests.golden import load_golden, official_state_dict


@pytest.mark.parametrize(
    'case',
    [
        pytest.param(case, id=case.file, marks=[pytest.mark.slow] if case.slow else [])
        for case in GOLDEN
    ],
)
def test_equals_the_official_code(case, tmp_path):
    fixture = load_golden(case.file)
    checkpoint = tmp_path / 'official.pth'
    torch.save(official_state_dict(fixture), checkpoint)

    model = MODELS.build(dict(case.config)).eval()
    report = load_pretrained(model, str(checkpoint))
    assert not report.unexpected

    with torch.no_grad():
        results = list(case.compare(model, fixture, torch.from_numpy(fixture['input'])))
    assert results
    for what, computed, expected in results:
        assert tuple(computed.shape) == expected.shape, what
        error = float(np.abs(computed.numpy() - expected).max())
        assert error <= case.atol, f'{what}: off by {error:.2e}, allowed {case.atol:.0e}'


def test_every_fixture_is_used(repo_root):
    files = {path.stem for path in (repo_root / 'tests' / 'data').glob('*.npz')}
    compared_elsewhere = {'sge_units', 'poolformer_pooling_unit'}  # single layers: tests/layers
    assert files - compared_elsewhere == {case.file for case in GOLDEN}
