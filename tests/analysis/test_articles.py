"""docs/articles.md names what is there."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

from attnpool_backbones.analysis.command import KINDS, parser_of_figures
from attnpool_backbones.cli import main
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.config_keys import require_known_keys
from attnpool_backbones.launching.options import CfgOptions
from attnpool_backbones.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'articles.md').read_text()
CODE = re.findall(r'`([^`]+)`', PAGE)
ROWS = [line for line in PAGE.splitlines() if re.match(r'\| \d', line)]
TRAININGS = sorted({code for code in CODE if code.startswith('python tools/train.py')})
FIGURES = sorted({code for code in CODE if re.match(r'attnpool figure \w', code)})


def test_every_row_has_a_command():
    for row in ROWS:
        _, number, _, _, command, ours, _ = row.split('|')
        assert re.search(r'`(python|attnpool|pytest|make) ', command), number
        assert not ours.strip() or re.search(r'\d', ours), number
    papers = [row.split('|')[1].strip().partition('.')[0] for row in ROWS]
    assert sorted(set(papers)) == ['0', '1', '2', '3', '4'] and len(ROWS) >= 42


def test_files_are_there():
    named = {path for code in CODE for path in re.findall(r'[\w-]+(?:/[\w.-]+)+\.py|\w+/\w*', code)}
    files = {path for path in named if path.endswith('.py')}
    assert len(files) > 40
    for path in files:
        assert any((folder / path).is_file() for folder in (ROOT, ROOT / 'attnpool_backbones')), (
            path
        )


def test_variants_are_there():
    found = {pair for code in CODE for pair in re.findall(r'([A-Z]\w+):(\w+)', code)}
    assert len(found) > 25
    for kind, arch in found:
        assert arch in MODELS.get(f'attnpool_backbones.{kind}').archs, (kind, arch)


@pytest.mark.parametrize('line', FIGURES)
def test_figures_are_commands(line):
    args = parser_of_figures().parse_args(shlex.split(line)[2:])
    assert args.kind in KINDS
    assert getattr(args, 'images', 'IMAGES') == 'IMAGES'


@pytest.mark.parametrize('line', TRAININGS)
def test_trainings_are_commands(line):
    """The config is there, its settings fit it, and the backbone they describe can be built."""
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions)
    args = parser.parse_args(shlex.split(line)[2:])
    cfg = load_config(str(ROOT / args.config), args.cfg_options)
    require_known_keys(cfg)
    backbone = dict(cfg.model.backbone, init_cfg=None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        if cfg.default_scope == 'mmengine':
            model = MODELS.build(dict(cfg.model, backbone=backbone)).eval()
            assert model(torch.zeros(2, 3, 64, 64)).shape == (2, cfg.model.head.num_classes)
        else:
            assert MODELS.build(backbone).out_channels


def test_tests_are_commands():
    named = {code.split()[1] for code in CODE if code.startswith('pytest ')}
    assert named and all((ROOT / file).is_file() for file in named)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'digit_scenes'
    generate(root, train=8, val=4)
    return root


@pytest.mark.slow
@pytest.mark.parametrize('line', [line for line in TRAININGS if 'nano' in line])
def test_nano_trainings_run(line, scenes, tmp_path):
    """The command itself, on eight scenes and for an epoch or two iterations."""
    config, *options = shlex.split(line)[2:]
    options = [word for word in options if '=' in word and word != 'load_from=CKPT']
    splits = ('train', 'val', 'test')
    options += [f'{split}_dataloader.dataset.data_root={scenes}' for split in splits]
    options += [f'{split}_dataloader.batch_size=4' for split in splits]
    options += [f'{split}_dataloader.num_workers=0' for split in splits]
    if 'upernet' in config:
        options += ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'param_scheduler=[]']
    else:
        options += ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'param_scheduler=[]']
    if 'mask-rcnn' in config:
        annotations = scenes / 'annotations' / 'instances_val.json'
        options += [f'{split}_evaluator.ann_file={annotations}' for split in ('val', 'test')]
        options += ['model.test_cfg.rcnn.score_thr=0.0']
    words = ['train', str(ROOT / config), '--work-dir', str(tmp_path / 'run'), '--seed', '0']
    assert main([*words, '--cfg-options', *options]) == 0
    assert (tmp_path / 'run' / 'last_checkpoint').exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    'line', sorted(code for code in CODE if code.startswith('python tools/analysis_tools/benchm'))
)
def test_benchmarks_are_commands(line):
    words = [sys.executable, *shlex.split(line)[1:], '--list']
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0 and answer.stdout, answer.stderr
