"""What a training will take is measured on the training itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet')

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.launching import forecast
from attnpool_backbones.launching.forecast import Forecast, epochs_within, largest_batch
from attnpool_backbones.launching.loaders import fit_loaders
from attnpool_backbones.own_data.preparing import prepare
from attnpool_backbones.own_data.request import Request


@pytest.fixture(scope='module')
def cfg(tmp_path_factory):
    root = tmp_path_factory.mktemp('forecast')
    generate(root / 'scenes', train=24, val=3, size=64)
    request = Request(
        str(root / 'scenes'), 'caformer-nano', 'faster-rcnn', size=64, batch=4, epochs=25,
        work_dir=str(root / 'run'),
    )  # fmt: skip
    cfg = prepare(request, tell=lambda line: None).cfg
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].num_workers = 0
    fit_loaders(cfg)
    return cfg


def test_steps_and_validations_are_those_of_the_config(cfg, tmp_path):
    cost = forecast.forecast(cfg, steps=2)
    assert (cost.steps, cost.epochs) == (6, 25)
    # every second epoch, and the last
    assert cfg.train_cfg.val_interval == 2 and cost.validations == 13
    assert cost.step > 0 and cost.validation > 0 and cost.memory > 2**27
    # one an epoch, two for each validation that may be the best, and what came after the last
    assert cost.checkpoints == 25 + 2 * 13 + 1 and cost.saving > 0 and cost.start > 0
    expected = 25 * 6 * cost.step + 13 * cost.validation + cost.start + 52 * cost.saving
    assert cost.seconds == pytest.approx(expected)


def test_nothing_is_left_of_a_measurement(cfg, capfd):
    before = sorted(Path(cfg.work_dir).iterdir())
    forecast.forecast(cfg, steps=1)
    assert sorted(Path(cfg.work_dir).iterdir()) == before
    assert 'loading annotations' not in capfd.readouterr().out


def test_a_folder_that_cannot_be_written_is_no_matter_of_the_forecast(cfg, tmp_path):
    blocked = cfg.copy()
    (tmp_path / 'file').write_text('')
    blocked.work_dir = str(tmp_path / 'file' / 'run')
    assert forecast.forecast(blocked, steps=1).saving == 0


def test_epochs_fit_into_a_time():
    cost = Forecast(step=2, steps=10, epochs=40, validation=30, validations=4, memory=0)
    assert cost.seconds == 920
    # a validation after every tenth epoch and after the last one
    for seconds, epochs in ((920, 40), (919, 39), (115, 4), (1, 1)):
        assert epochs_within(seconds, cost, lambda epochs: 10) == epochs
    # of 500 s the start takes 100, checkpoints 5 s each: 3 an epoch with its validation, and 1
    slow = replace(cost, start=100, saving=5, save_every=1, saves_best=True)
    assert epochs_within(500, slow, lambda epochs: 1) == 6
    assert replace(slow, epochs=6, validations=6).seconds == 100 + 6 * (20 + 30) + 19 * 5
    # after each one
    assert epochs_within(500, cost, lambda epochs: 1) == 10


def test_iterations_are_not_told(cfg):
    counted = cfg.copy()
    counted.train_cfg = dict(max_iters=100)
    with pytest.raises(UserError, match='counts iterations'):
        forecast.forecast(counted)


def measure(monkeypatch: pytest.MonkeyPatch, seconds, memory) -> list[int]:
    """Puts numbers in the place of measurements of time and memory, by batch."""
    tried = []

    def pace_of_steps(model, optimizer, loader, steps):
        tried.append(loader.batch_sampler.batch_size)
        return forecast._Pace(seconds(tried[-1]), 0.0)

    monkeypatch.setattr(forecast, '_pace_of_steps', pace_of_steps)
    monkeypatch.setattr(forecast, 'memory_used', lambda: memory(tried[-1] if tried else 0))
    # what was freed is among what is available
    monkeypatch.setattr(forecast, 'available_memory', lambda: 95)
    monkeypatch.setattr(forecast, 'resident_memory', lambda: 5)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    return tried


def out_of_memory(batch: int) -> float:
    if batch > 4:
        raise torch.OutOfMemoryError('more than there is')
    return 1.0


@pytest.mark.parametrize(
    'seconds, memory, images, batch',
    [
        (lambda b: 1.0, lambda b: 10, 80, 8),  # an epoch keeps eight steps
        (lambda b: float(b), lambda b: 10, 800, 1),  # more images take as much longer
        (lambda b: 1.0, lambda b: 10 + 10 * b, 800, 4),  # 8 would take 90 of 100
        (out_of_memory, lambda b: 10, 800, 4),
        (lambda b: 1.0, lambda b: 10, 10**6, forecast.LARGEST),
        (lambda b: 1.0, lambda b: max(60, 30 * b), 800, 2),  # 60 were held and freed before
    ],
    ids=['few images', 'no gain', 'memory', 'out of memory', 'limit', 'freed before'],
)
def test_batch_grows_until_it_does_not_pay(cfg, monkeypatch, seconds, memory, images, batch):
    measure(monkeypatch, seconds, memory)
    before = cfg.train_dataloader.batch_size
    assert largest_batch(cfg, images) == batch
    assert cfg.train_dataloader.batch_size == before
