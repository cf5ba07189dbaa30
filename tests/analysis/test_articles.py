"""docs/articles.md names what is there."""

import argparse
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

from attnpool_backbones.analysis.command import KINDS, parser_of_figures
from attnpool_backbones.analysis.trade_off import published_rows
from attnpool_backbones.cli import main
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.config_keys import require_known_keys
from attnpool_backbones.launching.options import add_common_arguments
from attnpool_backbones.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'articles.md').read_text()
CODE = re.findall(r'`([^`]+)`', PAGE)
ROWS = [line for line in PAGE.splitlines() if re.match(r'\| \d', line)]
TRAININGS = sorted({code for code in CODE if re.match(r'python tools/(train|test)\.py', code)})
BENCHMARKS = sorted(code for code in CODE if code.startswith('python tools/analysis_tools/benchm'))
FIGURES = sorted({code for code in CODE if re.match(r'attnpool figure \w', code)})


def test_every_row_has_a_command():
    for row in ROWS:
        _, number, _, _, command, ours, _ = row.split('|')
        assert re.search(r'`(python|attnpool|pytest|make) ', command), number
        assert not ours.strip() or re.search(r'\d', ours), number


def test_every_claim_has_a_row():
    """Each article's claims are numbered; a letter or a further number is a row of ours."""
    claims = {
        f'{paper}.{n + 1}' for paper, count in enumerate((11, 7, 6, 8, 10)) for n in range(count)
    }
    assert claims <= {row.split('|')[1].strip() for row in ROWS}


def place_of(path: str) -> Path | None:
    folders = (ROOT, ROOT / 'attnpool_backbones')
    return next((folder / path for folder in folders if (folder / path).exists()), None)


def test_files_and_folders_are_there():
    pattern = r'(?<![\w*{/-])[a-z_]\w*/(?:[\w.-]+/)*[\w-]*(?:\.(?:py|md|csv))?(?![\w*])'
    named = {path for code in CODE for path in re.findall(pattern, code)}
    assert len(named) > 60
    assert not [path for path in named if place_of(path) is None]


def test_code_has_what_rows_name():
    """A word beside files, an option or a function, is in one of these files."""
    seen = 0
    for row in ROWS:
        cell = row.split('|')[3]
        codes = re.findall('`([^`]+)`', cell)
        files = [place_of(code) for code in codes if code.endswith('.py')]
        text = ' '.join(file.read_text() for file in files if file)
        for word in (re.match(r'([a-z_]+)(=\w+)?$', code) for code in codes):
            if word:
                seen += 1
                assert re.search(rf'\b{word[1]}\b', text), (row.split('|')[1], word[0])
    assert seen > 8


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
    for pattern in getattr(args, 'published', None) or ():
        assert published_rows(pattern, args.metric)


@pytest.mark.parametrize('line', TRAININGS)
def test_trainings_are_commands(line):
    """The config is there, its settings fit it, and the backbone they describe can be built."""
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    if 'tools/test.py' in line:
        parser.add_argument('checkpoint')
    add_common_arguments(parser)
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


def test_targets_of_make_are_there():
    targets = {code.split()[1] for code in CODE if code.startswith('make ')}
    makefile = (ROOT / 'Makefile').read_text()
    assert targets and all(re.search(rf'^{name}:', makefile, re.MULTILINE) for name in targets)


@pytest.mark.parametrize('line', BENCHMARKS)
def test_benchmarks_have_these_flags(line, monkeypatch):
    tool = runpy.run_path(str(ROOT / shlex.split(line)[1]))
    monkeypatch.setattr(sys, 'argv', shlex.split(line)[1:])
    assert tool['parse_args']().models


@pytest.mark.slow
@pytest.mark.parametrize(
    'line', [line for line in TRAININGS if 'train.py' in line and 'nano' in line]
)
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
@pytest.mark.parametrize('line', BENCHMARKS)
def test_benchmarks_are_commands(line):
    words = [sys.executable, *shlex.split(line)[1:], '--list']
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0 and answer.stdout, answer.stderr
