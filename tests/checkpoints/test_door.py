"""mmengine, and what is built on it, reads checkpoints through the one door."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint
from safetensors.torch import save_file
from torch import nn

from attnpool_backbones.checkpoints import CheckpointError, UnsafeCheckpoint
from attnpool_backbones.checkpoints.door import load_from_checked_file
from attnpool_backbones.config_files import config_root
from tests.checkpoints.hostile_files import CALLS, program, saved
from tests.engine.tiny_run import make_config, make_runner
from tests.serving import serving


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address at which the files of the test's folder are served."""
    with serving(tmp_path, tmp_path / 'hub', monkeypatch) as address:
        yield address


class Head(BaseModule):
    """Anything of mmdet's or mmseg's that has an ``init_cfg``."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.conv = nn.Conv2d(1, 1, 1)


@pytest.mark.parametrize('forced', ['0', '1'])
@pytest.mark.parametrize('form', ['', 'file://', 'http'])
@pytest.mark.parametrize('name', ['os.system', 'rmtree', 'pickled model'])
def test_no_address_is_trusted(name, form, forced, tmp_path, server, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', forced)
    file = saved(CALLS[name](tmp_path), tmp_path)
    address = f'{server}/{file.name}' if form == 'http' else f'{form}{file}'
    head = Head(init_cfg=dict(type='Pretrained', checkpoint=address))
    prefixed = Head(init_cfg=dict(type='Pretrained', checkpoint=address, prefix='layer1'))
    for read in (
        lambda: CheckpointLoader.load_checkpoint(address),
        lambda: load_checkpoint(Head(), address),
        head.init_weights,
        prefixed.init_weights,
        lambda: make_runner('door', make_config(tmp_path / 'run')).load_checkpoint(address),
    ):
        with pytest.raises(UnsafeCheckpoint, match='wants to|holds'):
            read()
    assert file.exists() and not (tmp_path / 'executed').exists()


def test_every_scheme_of_mmengine_is_taken():
    assert {*CheckpointLoader._schemes.values()} == {load_from_checked_file}


READ = """
import sys
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
content = CheckpointLoader.load_checkpoint(sys.argv[1])
try:
    Config.fromstring(content['meta']['cfg'], '.py')
except ValueError as error:
    print('refused:', error)
"""


@pytest.mark.parametrize(
    'before',
    [
        'import attnpool_backbones',
        'import attnpool_backbones, mmengine.runner.checkpoint',
        'import attnpool_backbones, mmengine.model',
        'import attnpool_backbones, mmengine.hooks',
        'import mmengine.runner, attnpool_backbones',
        'import mmengine, attnpool_backbones',
        'import mmengine.runner.checkpoint, attnpool_backbones',
    ],
)
def test_importing_the_package_opens_the_door(before, tmp_path, repo_root):
    torch.save({'state_dict': {}, 'meta': {'cfg': program(tmp_path)}}, tmp_path / 'x.pth')
    done = subprocess.run(
        [sys.executable, '-c', f'{before}\n{READ}', str(tmp_path / 'x.pth')],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(repo_root)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 'refused: the config inside of the weights' in done.stdout, done.stderr[-2000:]
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_reading_a_config_opens_the_door(task, monkeypatch):
    imported = []
    monkeypatch.setattr(
        'mmengine.config.config.import_modules_from_strings', lambda **kw: imported.append(kw)
    )
    Config.fromfile(config_root() / f'_base_/default_runtime_{task}.py')
    assert imported[0]['imports'] == ['attnpool_backbones.checkpoints.door']


def test_honest_files_load_from_everywhere(tmp_path, server):
    weights = Head().state_dict()
    torch.save({'state_dict': weights, 'meta': {}}, tmp_path / 'w.pth')
    save_file(weights, tmp_path / 'w.safetensors')
    for address in (
        f'{tmp_path}/w.pth',
        f'file://{tmp_path}/w.pth',
        f'{server}/w.pth',
        f'{tmp_path}/w.safetensors',
        f'{server}/w.safetensors',
    ):
        head = Head()
        load_checkpoint(head, address, strict=True)
        assert torch.equal(head.conv.weight, weights['conv.weight'])


@pytest.mark.parametrize('resume', ['auto', 'named'])
def test_the_config_of_a_resumed_file_is_not_run(resume, tmp_path):
    make_runner('door', make_config(tmp_path)).train()
    file = tmp_path / 'epoch_4.pth'
    content = load_from_checked_file(str(file))
    content['meta']['config'] = program(tmp_path)
    content['meta']['cfg'] = program(tmp_path)
    torch.save(content, file)
    cfg = make_config(tmp_path)
    cfg.resume = True
    cfg.load_from = None if resume == 'auto' else str(file)
    runner = make_runner('door', cfg)
    runner.train()
    assert runner.epoch == 4
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize(
    ('name', 'value', 'fault'),
    [
        ('conv.weight', torch.tensor([torch.nan]), 'NaN in conv.weight'),
        ('conv.bias', torch.tensor([torch.inf]), 'infinite numbers in conv.bias'),
        ('bn.running_var', torch.tensor([-torch.inf]), 'infinite numbers in bn.running_var'),
        ('conv.weight', torch.tensor([1]), 'integers in conv.weight'),
        ('conv.bias', torch.tensor([True]), 'booleans in conv.bias'),
        ('conv.weight', torch.tensor([1j]), 'complex numbers in conv.weight'),
        ('mask', torch.tensor([torch.nan]), 'NaN in mask'),
        ('conv.weight', torch.tensor([torch.inf]).half(), 'infinite numbers'),
        ('conv.weight', torch.tensor([torch.nan]).bfloat16(), 'NaN'),
    ],
)
def test_weights_have_to_be_finite_numbers(name, value, fault, tmp_path):
    content = {name: value, 'other.weight': torch.full((9,), 3e38)}
    for stored in (content, {'state_dict': content}):
        torch.save(stored, tmp_path / 'x.pth')
        with pytest.raises(CheckpointError, match=rf'x\.pth.*{fault}'):
            load_checkpoint(Head(), str(tmp_path / 'x.pth'))


def test_what_is_no_weight_may_be_anything(tmp_path):
    content = {
        'bn.num_batches_tracked': torch.tensor(3),
        'mask': torch.tensor([0, -torch.inf]),
        'index': torch.tensor([1, 2]),
        'flag': torch.tensor(True),
        'large.weight': torch.full((100,), 6e4).half(),
    }
    torch.save(content, tmp_path / 'x.pth')
    assert load_from_checked_file(str(tmp_path / 'x.pth')).keys() == content.keys()


@pytest.mark.parametrize(
    'wrapper', ['_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module']
)
@pytest.mark.parametrize('place', ['{}.conv.{}', 'conv.{}.{}'])
def test_wrappers_are_taken_out_of_names(wrapper, place, tmp_path):
    weights = Head().state_dict()
    wrapped = {}
    for name, value in weights.items():
        parts = [wrapper, name.rpartition('.')[2]]
        wrapped[place.format(*parts)] = value
    torch.save({'state_dict': wrapped}, tmp_path / 'x.pth')
    head = Head()
    load_checkpoint(head, str(tmp_path / 'x.pth'), strict=True)
    assert torch.equal(head.conv.bias, weights['conv.bias'])


def test_our_checkpoints_are_plain_data(tmp_path):
    """Inferencers read weights before anything of ours could tell torch what is harmless."""
    runner = make_runner('plain', make_config(tmp_path))
    runner.message_hub.update_info('best_score', np.float64(0.5))
    runner.train()
    file = tmp_path / 'epoch_4.pth'
    content = torch.load(file, weights_only=True)
    assert type(content['message_hub']['runtime_info']['best_score']) is float
    loaded = load_from_checked_file(str(file))['message_hub']['log_scalars']
    logged = runner.message_hub.log_scalars
    assert loaded.keys() == logged.keys()
    for name, history in logged.items():
        for mine, theirs in zip(loaded[name].data, history.data, strict=True):
            assert np.array_equal(mine, theirs)
        assert loaded[name].mean(3) == history.mean(3)
        loaded[name].update(1.0)
