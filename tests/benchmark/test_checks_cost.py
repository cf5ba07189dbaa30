"""The cost of checks comes with an interval that holds it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from attnpool_backbones.benchmark import attention_pool_cost, checks_cost, image_head_cost
from attnpool_backbones.benchmark.checked_steps import (
    iterations,
    loads,
    same_numbers,
    write_checkpoint,
)
from attnpool_backbones.benchmark.checks_cost import WARM_UP, interval, paired_seconds
from attnpool_backbones.command_line import run_command


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


def test_only_pairs_of_the_same_settings_are_counted(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(checks_cost, 'measure', lambda args, folder: [(2.0, 1.0, 2.0, 1.0)] * 6)
    file = tmp_path / 'pairs.json'

    def call(*options: str) -> tuple[int, str]:
        words = ['checks_cost', 'loading', '--pairs-file', str(file), *options]
        monkeypatch.setattr(sys, 'argv', words)
        code = run_command(checks_cost.main)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    code, text = call()
    assert code == 0 and '(an interval needs 10 pairs), 6 pairs' in text
    code, text = call('--pairs', '9')
    assert code == 0 and '(95 % interval +100.00 to +100.00 %), 12 pairs' in text
    code, text = call('--mebibytes', '7')
    assert code == 2 and 'measured otherwise (mebibytes 162, now 7)' in text
    monkeypatch.setattr(checks_cost, 'source_digest', lambda: 'other')
    code, text = call()
    assert code == 2 and "now 'other')" in text
    for content in ('[[2.0, 1.0, 2.0, 1.0]]', '{'):  # of an earlier version, damaged
        file.write_text(content)
        code, text = call()
        assert code == 2 and 'no pairs with their settings' in text
        assert file.read_text() == content


@pytest.mark.parametrize('module', [attention_pool_cost, image_head_cost])
@pytest.mark.parametrize('rounds', ['0', '1', 'x'])
def test_too_few_rounds(module, rounds, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, 'argv', [module.__name__, '--rounds', rounds])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 2
    assert f"'{rounds}' is no whole number from 2 on" in capsys.readouterr().err


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
