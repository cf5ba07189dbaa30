"""A few steps of a nano segmentor, in one process or as one of several; as a script for torchrun.

Everything that depends on which images share a process is taken out: batch norms use their running
statistics or give way to group norms, and the loss is a plain mean over pixels.
"""

import json
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import FlexibleRunner, Runner

from attnpool_backbones.checkpoints.door import open_door
from attnpool_backbones.config_files import config_root
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.devices import leave_group
from attnpool_backbones.launching.launch import build_runner
from attnpool_backbones.process_lifetime import end_now

FAMILIES = {
    'patchconvnet': 'patchconvnet/upernet_patchconvnet-nano_slim_digit-scenes.py',
    'poolformer': 'poolformer/upernet_poolformer-nano_slim_digit-scenes.py',
    'metaformer': 'metaformer/upernet_caformer-nano_slim_digit-scenes.py',
    'coatnet': 'coatnet/upernet_coatnet-nano_slim_digit-scenes.py',
    'deepvit': 'deepvit/upernet_deepvit-nano_slim_digit-scenes.py',
    'attn_resnet': 'attn_resnet/upernet_sge-resnet-nano_slim_digit-scenes.py',
    'baselines': 'baselines/upernet_resnet-nano_slim_digit-scenes.py',
}
STEPS, GLOBAL_BATCH, SIZE = 4, 4, 64


class StepRecord(Hook):
    """Keeps the loss of every step, as the mean over the processes, and the gradient's norm.

    AdamW hardly notices gradients that are, say, twice too large; their norm does.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        loss = outputs['loss'].detach().clone()
        all_reduce(loss, 'mean')
        norm = runner.message_hub.get_scalar('train/grad_norm').current()
        self.steps.append((loss.item(), norm))


def make_config(
    family: str, data: str, work_dir: str, processes: int = 1, strategy: dict | None = None
) -> Config:
    """Config of the nano segmentor of a family.

    Args:
        family: A key of :data:`FAMILIES`.
        data: Folder of digit scenes.
        work_dir: Where a checkpoint goes after the last step.
        processes: How many share the global batch.
        strategy: Trains by a strategy of mmengine instead of by DDP.
    """
    cfg = load_config(
        str(config_root() / FAMILIES[family]),
        {
            'train_dataloader.dataset.data_root': data,
            'train_dataloader.batch_size': GLOBAL_BATCH // processes,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_cfg.max_iters': STEPS,
            'model.data_preprocessor.size': (SIZE, SIZE),
            'model.decode_head.norm_cfg': dict(
                _delete_=True, type='GN', num_groups=8, requires_grad=True
            ),
            'model.decode_head.loss_decode.class_weight': None,
            'model.backbone.norm_eval': True,
            # groups that a shard cannot be told by, and the most fragile way to run a block
            'optim_wrapper.constructor': 'attnpool_backbones.LayerDecayOptimWrapperConstructor',
            'optim_wrapper.paramwise_cfg': dict(_delete_=True, decay_rate=0.8),
            'model.backbone.with_cp': processes > 1,
            'param_scheduler': None,
        },
        work_dir,
        'none' if processes == 1 else 'pytorch',
    )
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg[key] = None
    cfg.default_hooks.checkpoint.interval = STEPS
    cfg.randomness = dict(seed=0)
    cfg.log_level = 'WARNING'
    cfg.experiment_name = f'{family}_{processes}_{strategy is not None}'
    cfg.find_unused_parameters = False
    if strategy is not None:
        cfg.strategy = strategy
    return cfg


def run(cfg: Config) -> list[tuple[float, float]]:
    """Trains; returns the loss and the norm of the gradient of every step."""
    # the survey of compilers and drivers takes longer than the training
    with patch.object(Runner, '_log_env'), patch.object(FlexibleRunner, '_log_env'):
        runner = build_runner(cfg)
    record = StepRecord()
    runner.register_hook(record)
    runner.train()
    if isinstance(runner.model, MMDistributedDataParallel):
        assert runner.model.find_unused_parameters is False
    return record.steps


def main(request: dict) -> None:
    """Trains as several processes do, and writes the steps of all families to a file.

    Args:
        request: ``families``, ``data``, ``folder`` (for results), and ``strategy`` or None.
    """
    torch.set_num_threads(1)
    open_door()
    folder = Path(request['folder'])
    steps = {}
    for family in request['families']:
        options = (request['data'], str(folder / family), 2, request['strategy'])
        cfg = make_config(family, *options)
        if request['resume'] is not None:
            cfg.load_from, cfg.resume = request['resume'], True
            cfg.train_cfg.max_iters = 2 * STEPS
        steps[family] = run(cfg)
    if is_main_process():
        (folder / 'steps.json').write_text(json.dumps(steps))
    leave_group()
    # as the commands end: threads of gloo may abort a process that takes itself apart
    end_now(0)


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
