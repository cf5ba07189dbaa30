"""What is removed in a work folder while a training runs."""

import json
import shutil
from pathlib import Path

import pytest
from mmengine.hooks import Hook

from tests.engine.tiny_run import ITERS, add_validation, make_config, make_runner

HOOK = dict(type='attnpool_backbones.WorkFolderHook')


class TidyUp(Hook):
    """Removes a folder of a running training.

    Args:
        path: Below the folder of the log.
        moment: Name of the hook's method that does it.
    """

    priority = 'HIGHEST'

    def __init__(self, path: str, moment: str) -> None:
        setattr(self, moment, lambda runner, *_, **__: self._remove(Path(runner.log_dir, path)))
        self.removed = False

    def _remove(self, folder: Path) -> None:
        if not self.removed:
            shutil.rmtree(folder)
        self.removed = True


@pytest.mark.parametrize('path', ['', 'vis_data'])
@pytest.mark.parametrize('moment', ['before_train_iter', 'before_val_iter'])
def test_a_log_that_is_tidied_up_does_not_end_a_training(moment, path, tmp_path):
    cfg = make_config(tmp_path, hooks=(HOOK,))
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
    add_validation(cfg)
    runner = make_runner('tidied', cfg)
    runner.register_hook(TidyUp(path, moment))
    runner.train()
    assert runner.iter == ITERS
    lines = Path(runner.log_dir, 'vis_data', 'scalars.json').read_text().splitlines()
    assert json.loads(lines[-1])['step'] == cfg.train_cfg.max_epochs


def test_a_validation_without_a_training_has_scores(tmp_path):
    cfg = make_config(tmp_path, hooks=(HOOK,))
    add_validation(cfg)
    assert make_runner('validated', cfg).val()
