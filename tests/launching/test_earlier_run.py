"""A run of commit 13e0dca, before packages, blocks and configs were moved, goes on today.

``tests/data/run_of_13e0dca`` is the work folder of two iterations of a tiny UPerNet on the digit
scenes (only a path in the checkpoint was shortened), what the trained model computed then, and the
hashes of names and shapes of all state dicts.
"""

import hashlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from attnpool_backbones.registry import MODELS
from tests.backbones.families import VARIANTS
from tests.golden import DATA

pytest.importorskip('mmseg')

RUN = DATA / 'run_of_13e0dca'
STATE_DICTS = json.loads((RUN / 'state_dicts.json').read_text())
VARIANTS_BY_NAME = {variant.name: variant for variant in VARIANTS}


@pytest.fixture
def work_dir(tmp_path):
    """The folder as the run left it, beside the data it was trained with."""
    shutil.copytree(RUN, tmp_path / 'run')
    (tmp_path / 'run' / 'config.txt').rename(tmp_path / 'run' / 'config.py')
    return tmp_path / 'run'


def test_weights_compute_what_they_computed(work_dir):
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS as SEGMENTORS

    cfg = Config.fromfile(work_dir / 'config.py')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = SEGMENTORS.build(cfg.model).eval()
    load_checkpoint(model, str(work_dir / 'iter_2.pth'), map_location='cpu', strict=True)
    image = torch.sin(torch.arange(3 * 64 * 96).float() * 0.37).view(1, 3, 64, 96)
    with torch.no_grad():
        logits = model(image, mode='tensor')[0]
    expected = torch.from_numpy(np.load(work_dir / 'logits.npz')['logits'])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_run_is_resumed(work_dir, monkeypatch, repo_root):
    from attnpool_backbones.datasets.digit_scenes import generate
    from tests.tools.test_messages import load_main

    monkeypatch.chdir(work_dir.parent)
    generate('data/digit_scenes', train=8, val=4)
    options = ['train_cfg.max_iters=3', 'train_cfg.val_interval=3']
    options += ['default_hooks.checkpoint.interval=3', 'default_hooks.logger.interval=1']
    monkeypatch.setattr(
        sys, 'argv', ['train.py', 'run/config.py', '--resume', '--cfg-options', *options]
    )
    load_main('train', repo_root)()
    resumed = torch.load(work_dir / 'iter_3.pth', weights_only=False)
    assert resumed['meta']['iter'] == 3 and resumed['meta']['seed'] == 0
    (state,) = {int(entry['step']) for entry in resumed['optimizer']['state'].values()}
    assert state == 3  # two of them were taken by the old commit


@pytest.mark.parametrize('name', STATE_DICTS)
def test_state_dicts_have_the_names_they_had(name):
    with torch.device('meta'):
        state = MODELS.build(dict(VARIANTS_BY_NAME[name].config)).state_dict()
    lines = [f'{k} {"x".join(map(str, t.shape))} {t.dtype}' for k, t in sorted(state.items())]
    assert hashlib.sha256('\n'.join(lines).encode()).hexdigest()[:16] == STATE_DICTS[name]
