"""A checkpoint sets weights of the run that loads it, and touches nothing else."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import FileClient, LocalBackend, register_backend
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from safetensors.torch import save_file
from torch import nn

from attnpool_backbones.checkpoints import CheckpointError, CheckpointMismatch
from attnpool_backbones.checkpoints.reading import read_content
from attnpool_backbones.launching.latest_checkpoint import UnusableCheckpoints
from attnpool_backbones.launching.resuming import choose_checkpoint_to_resume
from tests.engine.tiny_run import make_config, make_runner

GUARD = dict(type='attnpool_backbones.LoadGuardHook')
MMENGINES = dict(type='CheckpointHook')
WEIGHTS = {'layer.weight': torch.full((1, 2), 0.5), 'layer.bias': torch.full((1,), 0.25)}


def config(folder: Path, **checkpoint: Any) -> Config:
    return make_config(folder, hooks=(GUARD,), checkpoint={**MMENGINES, **checkpoint})


def train_and_score(hook: str, cfg: Config, **scores: float) -> tuple[Runner, Hook]:
    """Trains, and gives scores to the hook that saves."""
    runner = make_runner('guard', cfg)
    saver = next(h for h in runner.hooks if type(h).__name__ == hook.rpartition('.')[2])
    runner.train()
    saver.after_val_epoch(runner, scores)
    return runner, saver


def start(folder: Path, weights: dict, resume: bool = False, **settings: Any) -> Runner:
    """Loads a file as a training does, and trains no further."""
    file = folder / 'start.pth'
    if not resume:
        torch.save({'state_dict': weights}, file)
    cfg = config(folder / 'run')
    cfg.load_from, cfg.resume = str(file), resume
    for key, value in settings.items():
        cfg[key] = value
    cfg.train_cfg.max_epochs = 0 if not resume else 4
    runner = make_runner('guard', cfg)
    runner.train()
    return runner


@pytest.mark.parametrize(
    'form', ['{}', 'module.{}', '_orig_mod.{}', 'model.{}', 'layer.module.{}', 'layer._orig_mod.{}']
)
@pytest.mark.parametrize('container', ['state_dict', 'model', None])
def test_names_are_those_of_the_model(form, container, tmp_path):
    names = {n: n.removeprefix('layer.') if form.startswith('layer') else n for n in WEIGHTS}
    weights = {form.format(names[name]): value for name, value in WEIGHTS.items()}
    torch.save({container: weights} if container else weights, tmp_path / 'x.pth')
    cfg = config(tmp_path / 'run')
    runner = make_runner('guard', cfg)
    runner.load_checkpoint(str(tmp_path / 'x.pth'), strict=True)
    assert torch.equal(runner.model.layer.weight.cpu(), WEIGHTS['layer.weight'])


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_an_average_starts_from_weights_that_stand_alone(suffix, tmp_path):
    file = tmp_path / f'x{suffix}'
    (save_file if suffix == '.safetensors' else torch.save)(WEIGHTS, file)
    cfg = config(tmp_path / 'run')
    cfg.custom_hooks.append(dict(type='EMAHook'))
    cfg.load_from, cfg.train_cfg.max_epochs = str(file), 0
    runner = make_runner('guard', cfg)
    runner.train()
    (average,) = (hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook))
    for model in (runner.model, average.module):
        found = {name: value.cpu() for name, value in model.state_dict().items()}
        assert found.keys() == WEIGHTS.keys()
        assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


def test_contradicting_names_are_refused(tmp_path):
    twice = {**WEIGHTS, 'module.layer.bias': torch.ones(1)}
    with pytest.raises(CheckpointError, match=r'layer\.bias, module\.layer\.bias with different'):
        start(tmp_path, twice)
    same = {**WEIGHTS, 'module.layer.bias': WEIGHTS['layer.bias']}
    assert start(tmp_path, same).model.layer.bias == 0.25


@pytest.mark.parametrize('value', [torch.nan, torch.inf, 1, True, 1j])
def test_parameters_have_to_be_finite_numbers(value, tmp_path):
    with pytest.raises(CheckpointError, match=r'start\.pth.* in layer\.bias'):
        start(tmp_path, {**WEIGHTS, 'layer.bias': torch.tensor([value])})


def test_a_start_needs_some_weights(tmp_path):
    with pytest.raises(CheckpointMismatch, match='none of the 2 parameters of this Regression'):
        start(tmp_path, {'stem.weight': torch.ones(3)})
    partly = start(tmp_path, {'layer.bias': WEIGHTS['layer.bias']})
    assert partly.model.layer.bias == 0.25


def test_layers_do_not_stay_random_beside_their_weights(tmp_path):
    renamed = {'linear.weight': WEIGHTS['layer.weight'], 'linear.bias': WEIGHTS['layer.bias']}
    with pytest.raises(CheckpointMismatch, match=r'none of the 2|by other names'):
        start(tmp_path, renamed)


# model, weights of a file -> what mmdet calls them when it loads the file
RENAMED = {
    'one_detector_for_student_and_teacher': (
        'Pair',
        WEIGHTS,
        {f'{who}.{name}': name for who in ('student', 'teacher') for name in WEIGHTS},
    ),
    'a_head_of_proposals': (
        'TwoStages',
        {'backbone.weight': torch.ones(2, 2), 'bbox_head.conv.weight': torch.full((3, 2), 0.5),
         'bbox_head.conv.bias': torch.full((3,), 0.25)},
        {f'rpn_head.conv.{kind}': f'bbox_head.conv.{kind}' for kind in ('weight', 'bias')},
    ),
}  # fmt: skip


@pytest.fixture
def renaming_models() -> None:
    """Registers models of a few layers that are loaded as mmdet's are."""
    detectors = pytest.importorskip('mmdet.models')

    class Pair(detectors.SemiBaseDetector):
        def __init__(self) -> None:
            BaseModel.__init__(self)
            for who in ('student', 'teacher'):
                self.add_module(who, nn.ModuleDict(dict(layer=nn.Linear(2, 1))))

    class TwoStages(detectors.TwoStageDetector):
        def __init__(self) -> None:
            BaseModel.__init__(self)
            self.backbone = nn.Linear(2, 2, bias=False)
            self.rpn_head = nn.ModuleDict(dict(conv=nn.Linear(2, 3)))

    for model in (Pair, TwoStages):
        MODELS.register_module(module=model, force=True)


@pytest.mark.parametrize('case', RENAMED)
def test_names_that_a_model_gives_itself_count(case, renaming_models, tmp_path):
    kind, weights, names = RENAMED[case]
    loaded = start(tmp_path, weights, model=dict(type=kind)).model.state_dict()
    assert all(torch.equal(loaded[new].cpu(), weights[old]) for new, old in names.items())
    foreign = {f'x.{name}': value for name, value in weights.items()}
    with pytest.raises(CheckpointMismatch, match='none of the'):
        start(tmp_path, foreign, model=dict(type=kind))


def test_resuming_and_testing_need_everything(tmp_path):
    make_runner('guard', config(tmp_path)).train()
    shutil.copy(tmp_path / 'epoch_4.pth', tmp_path / 'start.pth')
    start(tmp_path, {}, resume=True)
    content = read_content(str(tmp_path / 'epoch_4.pth'))
    del content['state_dict']['layer.bias']
    torch.save(content, tmp_path / 'start.pth')
    with pytest.raises(CheckpointMismatch, match=r'not in the file: layer\.bias'):
        start(tmp_path, {}, resume=True)
    runner = make_runner('guard', config(tmp_path / 'test'))
    with pytest.raises(CheckpointMismatch, match=r'only 1 of the 2 parameters'):
        runner.load_checkpoint(str(tmp_path / 'start.pth'))


# ------------------------------------------------------------------ files of other runs


def best_of(folder: Path) -> Path:
    return folder / 'best_score_epoch_2.pth'


@pytest.mark.parametrize('indicators', ['score', ['score', 'other']])
@pytest.mark.parametrize('hook', ['CheckpointHook', 'attnpool_backbones.SafeCheckpointHook'])
def test_a_copied_run_leaves_the_original_alone(hook, indicators, tmp_path):
    saving = dict(type=hook, save_best=indicators, rule='greater', max_keep_ckpts=1)
    first, copy = tmp_path / 'first', tmp_path / 'copy'

    def run(folder: Path, epochs: int, resume: bool, score: float) -> None:
        cfg = config(folder, **saving)
        cfg.train_cfg.max_epochs, cfg.resume = epochs, resume
        runner, saver = train_and_score(hook, cfg, score=score, other=score)
        runner.train_loop._epoch += 1
        saver._save_checkpoint(runner)

    run(first, 2, False, 0.1)
    original = sorted(file.name for file in first.glob('*.pth'))
    assert best_of(first).exists()
    shutil.copytree(first, copy)
    run(copy, 4, True, 0.9)
    assert sorted(file.name for file in first.glob('*.pth')) == original
    assert not best_of(copy).exists() and (copy / 'best_score_epoch_4.pth').exists()


@pytest.mark.parametrize('hook', ['CheckpointHook', 'attnpool_backbones.SafeCheckpointHook'])
def test_a_file_of_another_folder_owns_nothing_here(hook, tmp_path):
    """Two runs have files of the same names."""
    saving = dict(type=hook, save_best='score', rule='greater', max_keep_ckpts=1)
    here, other = tmp_path / 'here', tmp_path / 'other'
    for folder, epochs, score in ((here, 2, 0.1), (other, 2, 0.1), (here, 3, 0.9)):
        cfg = config(folder, **saving)
        cfg.train_cfg.max_epochs = epochs
        if epochs == 3:
            cfg.resume, cfg.load_from = True, str(other / 'epoch_2.pth')
        train_and_score(hook, cfg, score=score)
    names = {file.name for file in here.glob('*.pth')}
    assert names == {f'{kind}epoch_{n}.pth' for kind in ('', 'best_score_') for n in (2, 3)}


class Bucket(LocalBackend):
    """A storage of addresses, which is a folder."""

    root: Path

    def path_of(self, address: str) -> str:
        return str(self.root / address.removeprefix('bucket://'))


for method in ('get', 'exists', 'isfile', 'isdir', 'remove'):
    setattr(
        Bucket,
        method,
        lambda self, address, name=method: getattr(LocalBackend, name)(self, self.path_of(address)),
    )
Bucket.put = lambda self, content, address: LocalBackend.put(self, content, self.path_of(address))
register_backend('bucket', Bucket, prefixes='bucket')
FileClient.register_backend('bucket', Bucket, prefixes='bucket')


@pytest.mark.parametrize('start', ['bucket://runs/here', 'bucket://runs/other'])
@pytest.mark.parametrize('hook', ['CheckpointHook', 'attnpool_backbones.SafeCheckpointHook'])
def test_files_behind_addresses_are_of_a_run_as_others_are(hook, start, tmp_path, monkeypatch):
    monkeypatch.setattr(Bucket, 'root', tmp_path / 'bucket', raising=False)
    saving = dict(type=hook, save_best='score', rule='greater', max_keep_ckpts=1)
    saving['out_dir'] = 'bucket://runs'
    for name, epochs, score in (('here', 2, 0.1), ('other', 2, 0.1), ('here', 3, 0.9)):
        cfg = config(tmp_path / name, **saving)
        cfg.train_cfg.max_epochs = epochs
        if epochs == 3:
            cfg.resume, cfg.load_from = True, f'{start}/epoch_2.pth'
        train_and_score(hook, cfg, score=score)
    names = {file.name for file in (tmp_path / 'bucket/runs/here').glob('*.pth')}
    left = (3,) if start.endswith('here') else (2, 3)
    assert names == {f'{kind}epoch_{n}.pth' for kind in ('', 'best_score_') for n in left}
    assert len(list((tmp_path / 'bucket/runs/other').glob('*.pth'))) == 2


@pytest.mark.parametrize('fault', ['', 'damaged', 'missing'])
def test_auto_goes_on_from_an_address(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(Bucket, 'root', tmp_path / 'bucket', raising=False)
    saving = dict(type='attnpool_backbones.SafeCheckpointHook', out_dir='bucket://runs')
    cfg = config(tmp_path / 'here', **saving)
    cfg.train_cfg.max_epochs = 2
    make_runner('guard', cfg).train()
    last = tmp_path / 'bucket/runs/here/epoch_2.pth'
    if fault == 'damaged':
        last.write_bytes(last.read_bytes()[:-100])
    elif fault == 'missing':
        last.unlink()
    cfg = config(tmp_path / 'here', **saving)
    if fault:
        with pytest.raises(UnusableCheckpoints, match='bucket://runs/here/epoch_2.pth, named by'):
            choose_checkpoint_to_resume(cfg, 'auto')
        return
    choose_checkpoint_to_resume(cfg, 'auto')
    assert cfg.resume and cfg.load_from == 'bucket://runs/here/epoch_2.pth'
    runner = make_runner('guard', cfg)
    runner.train()
    assert (runner.epoch, runner.iter) == (4, 24)


VICTIMS = ['precious.pth', 'best_folder.pth', '../best_outside.pth', 'best_link.pth']


@pytest.mark.parametrize('victim', VICTIMS)
@pytest.mark.parametrize('hook', ['CheckpointHook', 'attnpool_backbones.SafeCheckpointHook'])
def test_a_resumed_file_deletes_nothing(hook, victim, tmp_path):
    folder = tmp_path / 'run'
    saving = dict(type=hook, save_best='score', rule='greater', max_keep_ckpts=1)
    make_runner('guard', config(folder, **saving)).train()
    path = folder / victim
    if 'folder' in victim:
        path.mkdir()
        (path / 'content').touch()
    elif 'link' in victim:
        (tmp_path / 'target').touch()
        path.symlink_to(tmp_path / 'target')
    else:
        path.touch()
    content = read_content(str(folder / 'epoch_4.pth'))
    info = content['message_hub']['runtime_info']
    info.update(best_ckpt=str(path), last_ckpt=str(path), best_score=0.0)
    info['keep_ckpt_ids'] = [f'x/../../{path.name}', '../precious']
    for key in ('best_ckpt', 'last_ckpt', 'best_score', 'keep_ckpt_ids'):
        content['message_hub']['resumed_keys'][key] = True
    torch.save(content, folder / 'epoch_4.pth')
    cfg = config(folder, **saving)
    cfg.resume, cfg.load_from = True, str(folder / 'epoch_4.pth')
    train_and_score(hook, cfg, score=1.0)
    assert path.exists() and (not path.is_dir() or (path / 'content').exists())
