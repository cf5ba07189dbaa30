"""What is not a number stops the training with its place, before it reaches weights or files."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from torch import Tensor, nn

from attnpool_backbones.engine import InvalidLossHook
from attnpool_backbones.engine.invalid_loss_hook import InvalidLossError
from attnpool_backbones.engine.non_finite_search import image_names
from tests.engine.tiny_run import ITERS, Regression, make_config, make_runner

HOOK = dict(type='attnpool_backbones.InvalidLossHook')


class Scale(nn.Module):
    """The identity, which may break in the forward or the backward pass."""

    broken = ''

    def forward(self, x: Tensor) -> Tensor:
        if self.broken == 'forward':
            return x * torch.inf
        if self.broken == 'backward':
            return x + (x * 0).abs().sqrt()  # 0, with the slope 0 * inf
        return x


class Deep(Regression):
    """Batch norm, a layer and a module that breaks at the iterations ``faults`` name.

    Args:
        faults: From the number of a step to ``'forward'`` or ``'backward'``.
    """

    def __init__(self, faults: dict, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.norm = nn.BatchNorm1d(2)
        self.scale = Scale()
        self.faults = faults

    def forward(self, inputs: list, target: list, mode: str = 'tensor') -> dict:
        self.scale.broken = self.faults.get(self.iteration, '')
        x = self.scale(self.norm(torch.stack(inputs)))
        error = self.layer(self.dropout(x)).squeeze(1) - torch.stack(target)
        return dict(loss_square=error.square().mean(), loss_size=self.layer.weight.norm())


if 'Deep' not in MODELS.module_dict:
    MODELS.register_module(module=Deep)


class Counter(Hook):
    """Tells the model the iteration, and records weights and buffers after every one."""

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.states: list[dict] = []

    def before_train_iter(self, runner: object, batch_idx: int, data_batch: object = None) -> None:
        runner.model.iteration = runner.iter + 1

    def after_train_iter(self, runner: object, batch_idx: int, **_: object) -> None:
        self.states.append({k: v.clone() for k, v in runner.model.state_dict().items()})


def deep_run(folder: Path, faults: dict, clip: bool = False, hook: dict | None = None,
             start: Path | None = None, **wrapper):  # fmt: skip
    hooks = (dict(type='attnpool_backbones.RandomStateHook'), {**HOOK, **(hook or {})})
    cfg = make_config(folder, hooks=hooks)
    cfg.model = dict(type='Deep', faults=faults)
    cfg.optim_wrapper.update(wrapper)
    if clip:
        cfg.optim_wrapper.clip_grad = dict(max_norm=1.0)
    if start is not None:
        cfg.resume, cfg.load_from = True, str(start)
    runner = make_runner('finite', cfg)
    counter = Counter()
    runner.register_hook(counter)
    return runner, counter


# fault of step 9 -> what the message says of its place
PLACES = {
    'forward': r'loss_square (inf|nan).*First not finite: the output of scale \(Scale\)',
    'backward': r'loss_square \d.*First not finite: the gradient at the output of norm \(Batch',
}


@pytest.mark.parametrize('clip', [False, True])
@pytest.mark.parametrize('fault', PLACES)
def test_stops_before_the_weights_change(fault, clip, tmp_path):
    runner, counter = deep_run(tmp_path, {9: fault}, clip)
    with pytest.raises(InvalidLossError, match=r'iteration 9 \(epoch 2\): .*' + PLACES[fault]):
        runner.train()
    assert len(counter.states) == 8
    for name, value in runner.model.named_parameters():
        assert torch.equal(value, counter.states[-1][name])
    assert sorted(file.name for file in tmp_path.glob('*.pth')) == ['epoch_1.pth']


@pytest.mark.parametrize('accumulative_counts', [1, 3])
@pytest.mark.parametrize('fault', PLACES)
def test_skips_up_to_a_limit(fault, accumulative_counts, tmp_path):
    runner, counter = deep_run(
        tmp_path,
        {9: fault, 15: fault, 20: fault},
        hook=dict(max_skips=2),
        accumulative_counts=accumulative_counts,
    )
    with pytest.raises(InvalidLossError, match='not finite after 2 updates .* at iteration 2[01]'):
        runner.train()
    first = 8 - accumulative_counts  # the last state before the update of step 9
    for name, value in counter.states[8].items():
        if name != 'norm.num_batches_tracked':
            assert torch.equal(value, counter.states[first][name]), name
    assert not torch.equal(counter.states[11]['layer.weight'], counter.states[8]['layer.weight'])
    for state in counter.states:
        if accumulative_counts == 1:
            assert all(torch.isfinite(value).all() for value in state.values())


def test_a_resumed_run_counts_on(tmp_path):
    faults = {9: 'forward', 15: 'forward', 20: 'forward'}
    message = 'not finite after 2 updates .* at iteration 20'
    for start in (None, tmp_path / 'epoch_3.pth'):
        runner, counter = deep_run(tmp_path, faults, hook=dict(max_skips=2), start=start)
        with pytest.raises(InvalidLossError, match=message):
            runner.train()
    assert len(counter.states) == 1  # of the second run


def test_training_goes_on_after_a_skip(tmp_path):
    runner, counter = deep_run(tmp_path, {9: 'forward'}, hook=dict(max_skips=1))
    runner.train()
    assert len(counter.states) == ITERS and (tmp_path / 'epoch_4.pth').exists()


def test_watching_changes_nothing(tmp_path):
    plain, watched = (
        deep_run(tmp_path / str(skips), {}, hook=dict(max_skips=skips)) for skips in (0, 3)
    )
    for runner, _ in (plain, watched):
        runner.train()
    for name, value in plain[1].states[-1].items():
        assert torch.equal(value, watched[1].states[-1][name])


def test_names_iteration_and_losses(tmp_path):
    runner = make_runner('invalid', make_config(tmp_path, hooks=(HOOK,), nan_at=12))
    message = r'iteration 12 \(epoch 2\): .*loss_square \d.*loss_size nan.*the output of the model'
    with pytest.raises(InvalidLossError, match=message):
        runner.train()
    assert not (tmp_path / 'epoch_2.pth').exists()


class LogsNaN(Regression):
    """Has a loss that is only logged, and breaks at the twelfth step."""

    def train_step(self, data: dict, optim_wrapper: object) -> dict:
        losses = super().train_step(data, optim_wrapper)
        return {**losses, 'loss_logged': torch.tensor(torch.nan if self.steps >= 12 else 0.0)}


if 'LogsNaN' not in MODELS.module_dict:
    MODELS.register_module(module=LogsNaN)


@pytest.mark.parametrize(('interval', 'stop'), [(1, 12), (5, 15)])
def test_interval(interval, stop, tmp_path):
    hook = dict(HOOK, interval=interval)
    cfg = make_config(tmp_path, hooks=(hook,))
    cfg.model.type = 'LogsNaN'
    cfg.model.pop('nan_at')
    with pytest.raises(InvalidLossError, match=f'the loss is not finite at iteration {stop} '):
        make_runner('invalid', cfg).train()


def test_finite_training_ends(tmp_path):
    runner = make_runner('invalid', make_config(tmp_path, hooks=(HOOK,)))
    runner.train()
    assert (tmp_path / 'epoch_4.pth').exists()
    assert not runner.optim_wrapper.optimizer._optimizer_step_pre_hooks


def test_norms_beyond_the_largest_number_are_no_fault(tmp_path):
    runner, _ = deep_run(tmp_path, {})

    class Huge(Hook):
        def before_train_iter(self, runner: object, **_: object) -> None:
            runner.model.layer.weight.register_hook(lambda g: torch.full_like(g, 3e38))

    runner.register_hook(Huge())
    runner.train()


def test_loss_scales_that_never_fit(tmp_path):
    """A GradScaler's endless skipping, which needs no GPU to be told."""
    runner, _ = deep_run(tmp_path, {})

    class NeverSteps(Hook):
        priority = 'HIGHEST'

        def before_train(self, runner: object) -> None:
            runner.optim_wrapper.loss_scaler = object()
            runner.optim_wrapper.step = lambda **_: None

    runner.register_hook(NeverSteps())
    runner.train_loop._max_epochs = 20
    with pytest.raises(InvalidLossError, match='left out the last 50 updates'):
        runner.train()


@pytest.mark.parametrize('clip', [False, True])
@pytest.mark.parametrize('fused', [False, True])
def test_an_update_that_mixed_precision_leaves_out_is_no_fault(fused, clip, tmp_path):
    """Fused optimizers are called also where others are not."""
    optimizer = dict(type='AdamW', lr=0.05, fused=fused)
    runner, counter = deep_run(
        tmp_path, {9: 'backward'}, clip, type='ScaledOptimWrapper', optimizer=optimizer
    )
    runner.train()
    assert len(counter.states) == ITERS
    weights = [name for name, _ in runner.model.named_parameters()]
    before, left_out, after = counter.states[7:10]
    assert all(torch.equal(left_out[name], before[name]) for name in weights)
    assert not torch.equal(after['layer.weight'], left_out['layer.weight'])


@pytest.mark.parametrize('fused', [False, True])
def test_fused_optimizers_whose_loss_scale_never_fits(fused, tmp_path):
    optimizer = dict(type='AdamW', lr=0.05, fused=fused)
    faults = dict.fromkeys(range(3, 99), 'backward')
    runner, _ = deep_run(tmp_path, faults, type='ScaledOptimWrapper', optimizer=optimizer)
    runner.train_loop._max_epochs = 20
    with pytest.raises(InvalidLossError, match='left out the last 50 updates'):
        runner.train()


class Sample:
    def __init__(self, **metainfo: object) -> None:
        self.metainfo = metainfo


@pytest.mark.parametrize(
    ('batch', 'names'),
    [
        (dict(data_samples=[Sample(img_path='a/1.png'), Sample(img_path='b/1.png')]),
         ['a/1.png', 'b/1.png']),
        (dict(sup=dict(data_samples=[Sample(img_id=3)]), unsup=[Sample(img_path='c.png')]),
         ['3', 'c.png']),
        (dict(inputs=[torch.zeros(2)]), []),
        (None, []),
    ],
)  # fmt: skip
def test_names_of_images(batch, names):
    assert image_names(batch) == names


@pytest.mark.parametrize('name', ['interval', 'max_skips'])
def test_wrong_settings(name):
    with pytest.raises(ValueError, match=name):
        InvalidLossHook(**{name: -1})
