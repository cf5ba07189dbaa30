"""A run that is stopped and resumed ends with the weights of one that never stopped."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from attnpool_backbones.checkpoints.door import open_door
from attnpool_backbones.engine.random_state_hook import seed_generators
from attnpool_backbones.launching.latest_checkpoint import find_resumable_checkpoint, stored_seed
from attnpool_backbones.ops import bfloat16_attention
from attnpool_backbones.ops.bfloat16_attention import choose_batches
from attnpool_backbones.ops.choice import decisions
from tests.engine.tiny_run import EPOCHS, ITERS, Killed, KillInTraining, make_config, make_runner

HOOK = dict(type='attnpool_backbones.RandomStateHook')


def train(folder: Path, stop: int | None = None, resume: bool = False, **settings: object) -> dict:
    """Trains, is perhaps killed, and returns weights and losses."""
    open_door()
    cfg = make_config(folder, **settings)
    if resume:
        cfg.resume, cfg.load_from = True, find_resumable_checkpoint(str(folder))
        cfg.randomness.seed = stored_seed(cfg.load_from)
    runner = make_runner('random_state', cfg)
    if stop is not None:
        runner.register_hook(KillInTraining(stop + 1))
        with pytest.raises(Killed):
            runner.train()
    else:
        runner.train()
    return {key: value.clone() for key, value in runner.model.state_dict().items()}


EVERY_ITERATION = dict(every=0.0001)
SETTINGS = {
    'epochs': dict(),
    'epochs_within': dict(checkpoint=EVERY_ITERATION),
    'epochs_within_workers': dict(checkpoint=EVERY_ITERATION, workers=2),
    'epochs_within_persistent': dict(checkpoint=EVERY_ITERATION, workers=2, persistent=True),
    'iterations_within_workers': dict(checkpoint=EVERY_ITERATION, workers=2, by_epoch=False),
    'epochs_workers': dict(workers=2),
    'epochs_persistent_workers': dict(workers=2, persistent=True),
    'iterations': dict(by_epoch=False),
    'iterations_workers': dict(by_epoch=False, workers=2),
}


@pytest.mark.parametrize('name', SETTINGS)
def test_resumed_equals_uninterrupted(name, tmp_path):
    settings = dict(hooks=(HOOK,), seed=None if name == 'epochs' else 3, **SETTINGS[name])
    killed = train(tmp_path, stop=ITERS // 2 + 2, **settings)
    interim = [f'interim_iter_{ITERS // 2 + 2}.pth'] if 'within' in name else []
    assert [file.name for file in tmp_path.glob('interim*')] == interim
    resumed = train(tmp_path, resume=True, **settings)
    if settings['seed'] is None:
        settings['seed'] = stored_seed(find_resumable_checkpoint(str(tmp_path)))
    whole = train(tmp_path / 'whole', **settings)
    for key, value in whole.items():
        assert torch.equal(value, resumed[key])
        assert not torch.equal(value, killed[key])


@pytest.mark.parametrize('by_epoch', [True, False])
def test_number_of_workers_does_not_matter(by_epoch, tmp_path):
    one, two = (
        train(tmp_path / str(workers), hooks=(HOOK,), by_epoch=by_epoch, workers=workers)
        for workers in (0, 2)
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_seed_matters(tmp_path):
    one, two = (train(tmp_path / str(seed), hooks=(HOOK,), seed=seed) for seed in (1, 2))
    assert not torch.equal(one['layer.weight'], two['layer.weight'])


def test_without_the_hook_resuming_differs(tmp_path):
    """The reason for the hook; if this fails, mmengine restores random states by itself."""
    train(tmp_path, stop=ITERS // 2 + 2)
    resumed = train(tmp_path, resume=True)
    assert not torch.equal(train(tmp_path / 'whole')['layer.weight'], resumed['layer.weight'])


def test_mmengines_iteration_loop_is_warned_about(tmp_path):
    cfg = make_config(tmp_path, by_epoch=False, hooks=(HOOK,))
    cfg.train_cfg.type = 'IterBasedTrainLoop'
    runner = make_runner('random_state', cfg)
    messages = []
    runner.logger.warning = lambda message, *args: messages.append(message)
    runner.logger.log = lambda level, message, *args: messages.append(message)
    runner.train()
    assert any('ResumableIterBasedTrainLoop' in str(message) for message in messages)


def test_epochs_have_different_noise(tmp_path):
    seen = []

    class Record(Hook):
        def before_train_iter(self, runner: object, batch_idx: int, data_batch: dict) -> None:
            seen.extend(x[1].item() for x in data_batch['inputs'])

    runner = make_runner('random_state', make_config(tmp_path, hooks=(HOOK,), workers=2))
    runner.register_hook(Record())
    runner.train()
    assert len(set(seen)) == len(seen) == ITERS * 2 and EPOCHS > 1


@pytest.mark.parametrize('has_accelerator', [False, True])
def test_torch_is_seeded_with_and_without_an_accelerator(has_accelerator, monkeypatch):
    seeds = []
    plain = torch.manual_seed
    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: has_accelerator)
    monkeypatch.setattr(torch, 'manual_seed', lambda seed: seeds.append(seed) or plain(seed))
    seed_generators(0, 3, 1, 7)
    drawn = torch.rand(5)
    expected = int(np.random.SeedSequence((0, 3, 1, 7)).generate_state(3)[2])
    assert seeds == ([expected] if has_accelerator else [])
    plain(expected)
    assert torch.equal(drawn, torch.rand(5))


@pytest.mark.parametrize(('decision', 'lead', 'expected'), [
    (True, 2.0, True), (True, 0.0, False), (False, 2.0, False), ('yes', 2.0, None),
])  # fmt: skip
def test_operators_stay_with_the_way_they_began_with(
    decision, lead, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(bfloat16_attention, 'batches_lead', lambda: lead)
    choose_batches(decision)
    train(tmp_path, stop=9, hooks=(HOOK,))
    # another processor, or the same one at another time
    choose_batches(None if expected is None else not decision)
    train(tmp_path, resume=True, hooks=(HOOK,))
    assert decisions().get('bfloat16 attention') is expected
    choose_batches(None)
