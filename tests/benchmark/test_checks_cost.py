"""The cost of checks comes with an interval that holds it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from attnpool_backbones.benchmark.checked_steps import (
    iterations,
    loads,
    same_numbers,
    write_checkpoint,
)
from attnpool_backbones.benchmark.checks_cost import WARM_UP, interval, paired_seconds


@pytest.mark.parametrize('share', [0.0, 0.01, 0.2])
def test_interval_holds_the_share_in_spite_of_a_changing_machine(share: float) -> None:
    random = np.random.default_rng(0)
    slow = random.choice([1.0, 1.4, 2.0], 300)  # a moment meets both of a pair
    pairs = np.stack([slow * (1 + share), slow], 1) + random.normal(0, 0.02, (300, 2))
    found, low, high = interval(pairs)
    assert low <= found <= high
    assert low - 0.005 <= share <= high + 0.005
    assert high - low < 0.02


def test_both_take_turns_in_being_first() -> None:
    calls: list[str] = []
    pairs = paired_seconds(lambda: calls.append('a'), lambda: calls.append('b'), 4, 60)
    assert len(pairs) == 4 and all(len(pair) == 4 for pair in pairs)
    assert all(min(pair[:2]) > 0 and min(pair[2:]) >= 0 for pair in pairs)
    order = ''.join(calls[2 * WARM_UP :])
    assert order in ('abbaabba', 'baabbaab')


def test_an_end_by_time_keeps_a_pair() -> None:
    assert len(paired_seconds(list, list, 1000, 0)) == 1


@pytest.mark.parametrize('as_safetensors', [False, True])
def test_both_load_the_same(as_safetensors: bool, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 3, as_safetensors)
    checked, plain = (loads(path, checked)() for checked in (True, False))
    checked, plain = (content.get('state_dict', content) for content in (checked, plain))
    assert len(plain) == 203 and checked.keys() == plain.keys()
    assert all(torch.equal(checked[name], value) for name, value in plain.items())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    loads(path, False)()
    with pytest.raises(ValueError, match='checksum'):
        loads(path, True)()


def test_one_of_two_trainings_has_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('mmdet')
    runners: list[Runner] = []
    call_hook = Runner.call_hook

    def note(runner: Runner, name: str, **arguments: object) -> None:
        if runner not in runners:
            runners.append(runner)
        call_hook(runner, name, **arguments)

    monkeypatch.setattr(Runner, 'call_hook', note)
    steps = [iterations(tmp_path, checked, side=64, batch=2) for checked in (True, False)]
    prepare = same_numbers()
    for _ in range(3):
        for step in steps:
            prepare()
            step()
    # both have the same to do
    losses = [runner.message_hub.get_scalar('train/loss').data[0].tolist() for runner in runners]
    assert losses[0] == losses[1] and len(losses[0]) == 3
    checked, plain = ({type(hook).__name__ for hook in runner.hooks} for runner in runners)
    assert {'InvalidLossHook', 'WorkFolderHook', 'InputLimitsHook'} <= checked
    assert not {'InvalidLossHook', 'WorkFolderHook', 'InputLimitsHook'} & plain
    weights = [runner.model.backbone.state_dict() for runner in runners]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())
