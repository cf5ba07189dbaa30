"""Two processes with half of the batch each train as one process with all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')

from attnpool_backbones.checkpoints.reading import read_content
from attnpool_backbones.config_files import config_root
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.zoo.config_names import families
from tests.engine.family_run import FAMILIES, SIZE, STEPS, make_config, run

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason='compares with gloo, to the last digits'
)
SHARDED = dict(type='attnpool_backbones.ShardedStrategy')


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'digit_scenes'
    generate(root, train=8, val=1, size=SIZE)
    return root


def run_two_processes(
    families: list[str],
    scenes: Path,
    folder: Path,
    strategy: dict | None = None,
    resume: Path | None = None,
) -> dict[str, list[list[float]]]:
    """Trains by torchrun; returns loss and norm of the gradient for each family's steps."""
    folder.mkdir(exist_ok=True)
    request = dict(
        families=families,
        data=str(scenes),
        folder=str(folder),
        strategy=strategy,
        resume=None if resume is None else str(resume),
    )
    root = Path(__file__).parents[2]
    script = root / 'tests' / 'engine' / 'family_run.py'
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    done = subprocess.run(
        [*launcher, str(script), json.dumps(request)],
        env=dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / 'steps.json').read_text())


def run_one_process(
    family: str, scenes: Path, folder: Path, steps: int = STEPS
) -> list[tuple[float, float]]:
    cfg = make_config(family, str(scenes), str(folder))
    cfg.train_cfg.max_iters = steps
    return run(cfg)


def check_equal(several: list[list[float]], one: list[tuple[float, float]]) -> None:
    assert len(several) == len(one) >= STEPS
    for step in range(len(one)):
        assert several[step] == pytest.approx(one[step], rel=1e-4), step
    # nothing would be compared if nothing was learnt
    assert abs(one[-1][0] - one[0][0]) > 1e-2


def test_no_family_is_left_out():
    assert set(FAMILIES) == set(families(config_root()))


def test_patchconvnet(scenes, tmp_path):
    several = run_two_processes(['patchconvnet'], scenes, tmp_path / 'two')
    check_equal(several['patchconvnet'], run_one_process('patchconvnet', scenes, tmp_path / 'one'))


@pytest.mark.slow
def test_other_families(scenes, tmp_path):
    others = [family for family in FAMILIES if family != 'patchconvnet']
    several = run_two_processes(others, scenes, tmp_path / 'two')
    for family in others:
        check_equal(several[family], run_one_process(family, scenes, tmp_path / f'one_{family}'))


@pytest.mark.slow
def test_sharded(scenes, tmp_path):
    """Sharded training equals one process, also when it is resumed from a sharded checkpoint."""
    one = run_one_process('coatnet', scenes, tmp_path / 'one', steps=2 * STEPS)
    first = run_two_processes(['coatnet'], scenes, tmp_path / 'two', SHARDED)['coatnet']
    check_equal(first, one[:STEPS])

    file = tmp_path / 'two' / 'coatnet' / f'iter_{STEPS}.pth'
    sharded = read_content(str(file))['state_dict']
    last = tmp_path / 'one' / f'iter_{2 * STEPS}.pth'
    whole = read_content(str(last))['state_dict']
    assert {k: v.shape for k, v in sharded.items()} == {k: v.shape for k, v in whole.items()}
    assert not list(file.parent.glob('.*'))

    resumed = run_two_processes(['coatnet'], scenes, tmp_path / 'resumed', SHARDED, file)['coatnet']
    check_equal(resumed, one[STEPS:])
