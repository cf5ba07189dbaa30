"""No file of a stranger runs code, deletes files or exhausts the machine, whoever reads it."""

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, Runner

from attnpool_backbones.backbones import AttnResNet
from attnpool_backbones.checkpoints import CheckpointError, UnsafeCheckpoint, convert_file
from attnpool_backbones.inference.loading import load
from attnpool_backbones.launching.checkpoint_check import stored_shapes
from attnpool_backbones.launching.latest_checkpoint import examine
from tests.checkpoints.hostile_files import BOMBS, CODE, KINDS, MILLIONS
from tests.engine.tiny_run import make_config, make_runner

pytest.importorskip('mmdet')

LIMIT = 2.5e9  # bytes


def init_backbone(path: str) -> None:
    arch = dict(depths=(1, 1, 1, 1), widths=(8, 8, 8, 8))
    AttnResNet(arch=arch, init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()


def init_head(path: str) -> None:
    BaseModule(init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()


@functools.cache
def work_folder() -> tempfile.TemporaryDirectory:
    """Removed when Python ends."""
    return tempfile.TemporaryDirectory()


@functools.cache
def runner() -> Runner:
    return make_runner('hostile', make_config(work_folder().name))


@functools.cache
def detector() -> torch.nn.Module:
    """A whole model of mmdet's, none of it of this package but the door."""
    from mmdet.registry import MODELS

    backbone = dict(type='AttnResNet', arch=dict(depths=(1, 1, 1, 1), widths=(8, 8, 8, 8)))
    return MODELS.build(
        dict(
            type='RetinaNet',
            backbone=dict(backbone, type='attnpool_backbones.AttnResNet'),
            neck=dict(type='FPN', in_channels=[32, 32, 32, 32], out_channels=8, num_outs=5),
            bbox_head=dict(
                type='RetinaHead', num_classes=2, in_channels=8, feat_channels=8, stacked_convs=1
            ),
            _scope_='mmdet',
        )
    )


def init_part(name: str, path: str) -> None:
    """Starts a detector whose config says where one part's weights are."""
    whole = detector()
    for part in ('neck', 'bbox_head'):
        module = getattr(whole, part)
        module._is_init = False
        module.init_cfg = dict(type='Pretrained', checkpoint=path) if part == name else None
    whole._is_init = False
    whole.init_weights()


CONFIG = """
default_scope = 'mmdet'
model = dict(type='RetinaNet')
"""


def predict(path: str) -> None:
    """Loads a model as ``attnpool predict`` does."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / 'config.py'
        config.write_text(CONFIG)
        load(config, path)


DOORS: dict[str, Callable[[str], object]] = {
    'backbone': init_backbone,
    'module': init_head,
    'neck of a detector': functools.partial(init_part, 'neck'),
    'head of a detector': functools.partial(init_part, 'bbox_head'),
    'load_from': lambda path: runner().load_checkpoint(path),
    'resume': lambda path: runner().resume(path),
    'mmengine': lambda path: CheckpointLoader.load_checkpoint(path, map_location='cpu'),
    'convert': lambda path: convert_file(path, Path(path).with_suffix('.converted.pth')),
    'preflight': stored_shapes,
    'predict': predict,
}


@pytest.fixture(autouse=True)
def forced(monkeypatch):
    """Nobody talks torch out of it."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')


WANTED = {
    'os.system': 'posix.system',
    'exec': 'builtins.exec',
    'eval': 'builtins.eval',
    'subprocess': 'subprocess.check_call',
    'rmtree': 'shutil.rmtree',
    'remove': 'posix.remove',
    'torch.load': 'torch.serialization.load',
    'getattr of a module': 'builtins.__import__',
    'getattr of a tensor': "getattr(Tensor, 'backward')",
    'object type': "numpy array of type 'O'",
    'pickled model': 'hostile_files.Module',
    'tensor of 40 GB': 'torch.FloatTensor',
    'INST': 'os.system',
    'TorchScript': 'TorchScript',
}
"""What a message has to tell."""


@pytest.mark.parametrize('name', CODE)
def test_no_file_runs_or_deletes_anything(name, tmp_path):
    (tmp_path / 'precious').touch()
    (tmp_path / 'program.py').write_text(f'open({str(tmp_path / "executed")!r}, "w").close()')
    path = str(CODE[name](tmp_path))
    there = sorted(tmp_path.iterdir())
    for door in DOORS.values():
        with pytest.raises(CheckpointError) as info:
            door(path)
        assert isinstance(info.value, UnsafeCheckpoint), info.value
        assert '\n' not in str(info.value) and path in str(info.value)
        assert WANTED.get(name.partition(',')[0], '') in str(info.value)
    assert examine(Path(path)).fault
    assert sorted(tmp_path.iterdir()) == there


SCRIPT = """
import json, sys, time
from pathlib import Path
from attnpool_backbones.command_line import UserError
from attnpool_backbones.machine import peak_memory
from tests.checkpoints import test_hostile_files as tests

results = {}
for name in sys.argv[2:]:
    folder = Path(sys.argv[1]) / name.replace('/', '_')
    folder.mkdir()
    path = str(tests.GREEDY[name](folder))
    for door, read in tests.DOORS.items():
        start = time.process_time()
        try:
            message = f'loaded {read(path)}'
        except UserError as error:
            message = f'{type(error).__name__}: {error}'
        except BaseException as error:
            message = f'raw {type(error).__name__}: {error}'
        answer = message[:2000], time.process_time() - start, peak_memory()
        results.setdefault(name, {})[door] = answer
print(json.dumps(results))
"""
GREEDY = {**BOMBS, **KINDS, **MILLIONS}


def ask_every_door(names: Iterable[str], folder: Path) -> dict[str, dict[str, list]]:
    """What every door says to files that would fill the memory, all in one process."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, str(folder), *names],
        env=dict(os.environ, PYTHONPATH=str(root)),
        cwd=root,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check_answers(answers: dict[str, list], name: str) -> None:
    assert answers.keys() == DOORS.keys()
    for door, (message, seconds, peak) in answers.items():
        assert re.match(r'(Unsafe|Damaged|No)?Checkpoint(Error)?: ', message), (door, message)
        assert '\n' not in message and WANTED.get(name, '') in message
        assert seconds < 60  # of the processor; who waits for ever is ended by the other limit
        assert peak < LIMIT


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
    return ask_every_door([*BOMBS, *KINDS], tmp_path_factory.mktemp('greedy'))


@pytest.mark.parametrize('name', [*BOMBS, *KINDS])
def test_no_file_exhausts_the_machine(name, answers):
    check_answers(answers[name], name)


@pytest.mark.slow
@pytest.mark.parametrize('name', MILLIONS)
def test_millions_of_objects(name, tmp_path):
    check_answers(ask_every_door([name], tmp_path)[name], name)


def test_how_many():
    assert len(CODE) + len(BOMBS) + len(KINDS) + len(MILLIONS) >= 85
