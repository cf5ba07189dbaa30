"""The score of a validation by several processes is that of the checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attnpool_backbones.checkpoints.reading import read_content
from tests.engine.tiny_run import NoisyPoints, Regression

PROCESSES = 2
TRAINING = """
import json, sys
from pathlib import Path
from mmengine.dist import get_rank
from mmengine.registry import HOOKS, MODELS
from mmengine.hooks import Hook
from attnpool_backbones.command_line import exit_command
from attnpool_backbones.launching.launch import run_training
from attnpool_backbones.launching.run_plan import RunPlan
from attnpool_backbones.launching.safeguards import add_safeguards
from tests.engine.test_shared_buffers_hook import NormedRegression
from tests.engine.tiny_run import make_config

MODELS.register_module(module=NormedRegression)

@HOOKS.register_module()
class Score(Hook):
    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if not batch_idx:
            self.statistics = [buffer.tolist() for buffer in runner.model.buffers()]

    def after_val_epoch(self, runner, metrics=None):
        told = dict(statistics=self.statistics, score=metrics['tiny/error'])
        Path(runner.work_dir, f'{get_rank()}.json').write_text(json.dumps(told))

def main():
    cfg = make_config(sys.argv[1])
    cfg.model.type = 'NormedRegression'
    cfg.train_cfg.max_epochs = 2
    cfg.launcher, cfg.experiment_name = 'pytorch', 'shared_buffers'
    cfg.val_dataloader = dict(cfg.train_dataloader, batch_size=1,
                              sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.val_cfg, cfg.val_evaluator = dict(), dict(type='MeanError')
    add_safeguards(cfg)
    cfg.custom_hooks += [dict(type='Score', priority='LOWEST')]
    if sys.argv[2] == 'without':
        cfg.custom_hooks = [h for h in cfg.custom_hooks if 'SharedBuffers' not in h['type']]
    run_training(RunPlan(cfg, ('train',), True, 'load_from', False))

exit_command(main)
"""


class NormedRegression(Regression):
    """With running statistics; a prediction is of the points alone, without noise."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.norm = torch.nn.BatchNorm1d(2)

    def forward(self, inputs: list, target: list, mode: str = 'tensor') -> dict:
        if mode != 'predict':
            return super().forward(list(self.norm(torch.stack(inputs))), target, mode)
        place = torch.stack(inputs)[:, :1]
        return [self.layer(self.norm(place.expand(-1, 2))).squeeze(1)]


def trained(folder: Path, repo_root: Path, hook: str) -> tuple[list[list], list[float]]:
    """Trains, and returns the statistics that each process validates with, and the scores."""
    (folder / 'script.py').write_text(TRAINING)
    launcher = 'attnpool_backbones.launching.processes'
    done = subprocess.run(
        [sys.executable, '-m', launcher, f'--nproc-per-node={PROCESSES}',
         str(folder / 'script.py'), str(folder / 'run'), hook],
        env=dict(os.environ, PYTHONPATH=str(repo_root), OMP_NUM_THREADS='1'),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    told = [json.loads((folder / f'run/{rank}.json').read_text()) for rank in range(PROCESSES)]
    return [each['statistics'] for each in told], [each['score'] for each in told]


@pytest.mark.skipif(torch.cuda.is_available(), reason='the processes would look for cards')
def test_all_processes_validate_what_is_saved(tmp_path: Path, repo_root: Path) -> None:
    model = NormedRegression().eval()
    points = [NoisyPoints()[index]['inputs'] for index in range(len(NoisyPoints()))]

    def score_of(folder: Path) -> float:
        content = read_content(str(folder / 'run' / 'epoch_2.pth'))
        model.load_state_dict(content['state_dict'])
        errors = model(points, [], mode='predict')[0]
        return float(errors.abs().mean().detach())

    for name in ('with', 'without'):
        (tmp_path / name).mkdir()
    statistics, scores = trained(tmp_path / 'with', repo_root, 'with')
    assert statistics[0] == statistics[1]
    assert scores == pytest.approx([score_of(tmp_path / 'with')] * PROCESSES, rel=1e-5)
    # what mmengine does by itself, so that this test can fail
    statistics, scores = trained(tmp_path / 'without', repo_root, 'without')
    assert statistics[0] != statistics[1]
    assert scores[0] != pytest.approx(score_of(tmp_path / 'without'), rel=1e-5)
