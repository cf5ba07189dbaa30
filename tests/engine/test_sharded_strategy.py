"""What is sharded, and what is loaded into it; how it trains is in test_ddp_equality.py."""

import json
import os
import subprocess
import sys

import pytest
import torch
from mmengine._strategy import FSDPStrategy
from mmengine.optim import AmpOptimWrapper
from torch import nn

from attnpool_backbones.checkpoints.reading import read_content
from attnpool_backbones.engine import sharded_strategy
from attnpool_backbones.engine.sharded_strategy import ShardedStrategy, backbone_layers
from attnpool_backbones.registry import MODELS
from tests.backbones.families import FAMILIES, VARIANTS

NANO = [variant for variant in VARIANTS if variant.name.endswith('nano')]


class Detector(nn.Module):
    """A backbone and a head."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2, 2)


@pytest.mark.parametrize('variant', NANO, ids=lambda variant: variant.name)
def test_layers_of_the_backbone_are_sharded(variant):
    model = Detector(MODELS.build(dict(variant.config)))
    layers = backbone_layers(model)
    inside = [id(p) for layer in layers for p in layer.parameters()]
    # no layer lies in another one, and none is the head
    assert len(set(inside)) == len(inside)
    assert not set(inside) & {id(p) for p in model.head.parameters()}
    sizes = {id(p): p.numel() for p in model.backbone.parameters()}
    assert sum(sizes[i] for i in inside) > 0.9 * sum(sizes.values())
    largest = max(sum(p.numel() for p in layer.parameters()) for layer in layers)
    assert largest < 0.5 * sum(sizes.values())


def test_every_family_is_tried():
    assert {variant.config['type'] for variant in NANO} == set(FAMILIES)


def test_other_backbones_are_refused():
    with pytest.raises(TypeError, match='layer_prefixes.*Linear'):
        backbone_layers(Detector(nn.Linear(2, 2)))


@pytest.mark.parametrize('kind', ['AmpOptimWrapper', 'mmengine.AmpOptimWrapper', AmpOptimWrapper])
def test_processes_agree_on_the_loss_scale(kind, tmp_path, monkeypatch):
    built = []  # not the wrapper, which wants a GPU
    monkeypatch.setattr(
        sharded_strategy, 'build_optim_wrapper', lambda model, settings: built.append(settings)
    )
    monkeypatch.setattr(FSDPStrategy, 'prepare', lambda self, model, **settings: None)
    settings = dict(type=kind, optimizer=dict(type='SGD', lr=0.1), loss_scale='dynamic')
    strategy = ShardedStrategy(work_dir=str(tmp_path))
    strategy.prepare(nn.Linear(2, 2), optim_wrapper=settings)
    assert built == [dict(settings, use_fsdp=True)]


# ------------------------------------------------------------------ loading

SCRIPT = """
import json, sys
from mmengine.dist import is_main_process
from attnpool_backbones.checkpoints.errors import CheckpointError
from attnpool_backbones.launching.devices import leave_group
from attnpool_backbones.launching.launch import build_runner
from attnpool_backbones.process_lifetime import end_now
from tests.engine.tiny_run import make_config
import tests.faults.tiny_train  # registers the model

outcomes = {}
for name, settings in json.loads(sys.argv[1]).items():
    guard = dict(type='attnpool_backbones.LoadGuardHook')
    cfg = make_config(settings.pop('folder'), hooks=(guard,))
    cfg.model.type = 'DeepRegression'
    cfg.strategy = dict(type='attnpool_backbones.ShardedStrategy')
    cfg.launcher, cfg.experiment_name = 'pytorch', name
    cfg.train_cfg.max_epochs = settings.pop('epochs', 0)
    cfg.update(settings)
    runner = build_runner(cfg)
    try:
        runner.train()
    except CheckpointError as error:
        outcomes[name] = str(error)
    else:
        weights = runner.strategy.model_state_dict()
        outcomes[name] = {key: value.tolist() for key, value in weights.items()}
if is_main_process():
    print('outcomes', json.dumps(outcomes), flush=True)
leave_group()
end_now(0)  # as the commands end: threads of gloo may abort a process that takes itself apart
"""


def start_sharded(cases: dict[str, dict], folder, repo_root) -> dict:
    """Starts sharded runs in two processes; returns the weights of each, or what refused it."""
    (folder / 'script.py').write_text(SCRIPT)
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    cases = {name: dict(case, folder=str(folder / name)) for name, case in cases.items()}
    done = subprocess.run(
        [*launcher, str(folder / 'script.py'), json.dumps(cases)],
        env=dict(os.environ, PYTHONPATH=str(repo_root), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith('outcomes ')]
    return json.loads(line.removeprefix('outcomes '))


@pytest.mark.skipif(torch.cuda.is_available(), reason='two processes by gloo')
def test_only_the_own_weights_are_loaded(tmp_path, repo_root):
    first = start_sharded(dict(first=dict(epochs=1)), tmp_path, repo_root)['first']
    content = read_content(str(tmp_path / 'first' / 'epoch_1.pth'))
    own = content['state_dict']
    assert {name: value.tolist() for name, value in own.items()} == first
    files = {
        'own': own,
        'wrapped': {f'module.{name}': value for name, value in own.items()},
        'of_another_model': {'stem.weight': torch.ones(3)},
        'by_other_names': {n.replace('backbone', 'trunk'): value for n, value in own.items()},
        'resumed': {name: value for name, value in own.items() if name != 'layer.bias'},
    }
    cases = {}
    for name, weights in files.items():
        torch.save({**content, 'state_dict': weights}, tmp_path / f'{name}.pth')
        cases[name] = dict(load_from=str(tmp_path / f'{name}.pth'), resume=name == 'resumed')
    outcomes = start_sharded(cases, tmp_path, repo_root)
    assert outcomes['own'] == outcomes['wrapped'] == first
    assert 'none of the 6 parameters of this DeepRegression' in outcomes['of_another_model']
    assert 'lacks whole layers, 4 parameters' in outcomes['by_other_names']
    assert 'not in the file: layer.bias' in outcomes['resumed']
