"""The tiny training as a command: what ``tools/train.py`` does after reading its config.

    python -m tests.faults.tiny_train FOLDER '{"workers": 2, "resume": true}'

Prints ``iteration N`` after every one, and in the end a digest of weights and losses.
"""

import hashlib
import json
import os
import sys
import time
from typing import Any

import torch
from mmengine.dist import is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from torch.distributed.fsdp import FullyShardedDataParallel

from attnpool_backbones.command_line import exit_command
from attnpool_backbones.launching.launch import run_training
from attnpool_backbones.launching.resuming import choose_checkpoint_to_resume
from attnpool_backbones.launching.run_plan import RunPlan
from attnpool_backbones.launching.safeguards import add_safeguards
from tests.engine.tiny_run import Regression, add_validation, make_config


class Tell(Hook):
    """Prints iterations and validations, and takes its time.

    Args:
        pause: Seconds that an iteration lasts longer.
        slow_saving: Seconds that a checkpoint lasts longer.
    """

    priority = 'LOWEST'

    def __init__(self, pause: float, slow_saving: float) -> None:
        self.pause = pause
        self.slow_saving = slow_saving

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if is_main_process():
            print('iteration', runner.iter + 1, flush=True)
        time.sleep(self.pause)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        print('saving', flush=True)
        time.sleep(self.slow_saving)

    def before_val_epoch(self, runner: Any) -> None:
        print('validation after', runner.iter, flush=True)
        time.sleep(self.pause)

    @master_only  # the log is that of the first process
    def after_train(self, runner: Any) -> None:
        if isinstance(runner.model, FullyShardedDataParallel):
            return  # no process has all weights
        weights = [value.numpy().tobytes() for value in runner.model.state_dict().values()]
        losses = runner.message_hub.get_scalar('train/loss').data[0].tobytes()
        rates = runner.message_hub.get_scalar('train/lr').data[0].tobytes()
        digest = hashlib.sha256(b''.join([*weights, losses, rates])).hexdigest()[:16]
        print(f'digest {digest} scores {runner.message_hub.get_info("best_score")}', flush=True)


class Layers(torch.nn.Sequential):
    """Tells what of it can be sharded, as backbones do."""

    def layer_prefixes(self) -> list[list[str]]:
        return [[name] for name, _ in self.named_children()]


class DeepRegression(Regression):
    """With a backbone that can be sharded."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.backbone = Layers(torch.nn.Linear(2, 8), torch.nn.Linear(8, 2))

    def forward(self, inputs: list, target: list, mode: str = 'tensor') -> dict:
        return super().forward(list(self.backbone(torch.stack(inputs))), target, mode)


MODELS.register_module(module=DeepRegression, force=True)
HOOKS.register_module(module=Tell, force=True)


def main() -> None:
    folder, settings = sys.argv[1], json.loads(sys.argv[2])
    resume = settings.pop('resume', True)
    pause = settings.pop('pause', 0.0)
    slow_saving = settings.pop('slow_saving', 0.0)
    every, wait = settings.pop('every', None), settings.pop('wait_for_space', False)
    launcher = settings.pop('launcher', 'none')
    sharded = settings.pop('sharded', False)
    validate = settings.pop('validate', False)
    if settings.pop('nan_rank', None) == int(os.environ.get('RANK', 0)):
        settings['nan_at'] = 5
    cfg = make_config(folder, **settings)
    cfg.launcher = launcher
    cfg.experiment_name = 'tiny'
    if sharded:
        cfg.model.type = 'DeepRegression'
        cfg.strategy = dict(type='attnpool_backbones.ShardedStrategy')
    if validate:
        add_validation(cfg)
    add_safeguards(cfg, every, wait)
    choose_checkpoint_to_resume(cfg, 'auto' if resume else None)
    cfg.custom_hooks += [dict(type='Tell', pause=pause, slow_saving=slow_saving)]
    run_training(RunPlan(cfg, ('train',), True, 'load_from', bool(cfg.get('resume'))))


if __name__ == '__main__':
    exit_command(main)
