"""Reading: every form in which weights are stored, and what is refused."""

import argparse
import hashlib
import io
import pickle
import re
import tarfile
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from attnpool_backbones.checkpoints import UnsafeCheckpoint, fetching, read_checkpoint
from attnpool_backbones.checkpoints.errors import CheckpointError, UnreachableCheckpoint
from attnpool_backbones.command_line import UserError
from tests.serving import QuietHandler, serving

WEIGHTS = {'stem.0.weight': torch.arange(6.0).view(2, 3), 'blocks.0.bias': torch.ones(3)}
AVERAGE = {name: value + 1 for name, value in WEIGHTS.items()}
TRAINING = {
    'optimizer': {'state': {0: {'exp_avg': torch.zeros(2)}}, 'param_groups': [{'lr': 0.1}]},
    'epoch': 7,
    'best': torch.tensor(0.5),
    'args': argparse.Namespace(model='s60', drop=None, milestones=[1, 2]),
}


def prefixed(prefix, weights=None):
    return {f'{prefix}{name}': value for name, value in (weights or WEIGHTS).items()}


FORMS = {
    'bare': WEIGHTS,
    'ordered': OrderedDict(WEIGHTS),
    'parameters': {name: torch.nn.Parameter(value) for name, value in WEIGHTS.items()},
    'model': {'model': WEIGHTS},
    'state_dict': {'state_dict': WEIGHTS},
    'module': {'module': WEIGHTS},
    'nested': {'model': {'state_dict': WEIGHTS}},
    'training': {'model': WEIGHTS, **TRAINING},
    'with average': {'state_dict': WEIGHTS, 'state_dict_ema': AVERAGE, **TRAINING},
    'average only': {'state_dict_ema': WEIGHTS, **TRAINING},
    'distributed': prefixed('module.'),
    'compiled': {'model': prefixed('_orig_mod.module.')},
    'partly prefixed': {'steps': torch.tensor(3), **prefixed('module.')},
    'detector': {'state_dict': {**prefixed('backbone.'), 'neck.0.weight': torch.ones(1)}},
    'distributed detector': prefixed('module.backbone.'),
    'wrapped backbone': prefixed('backbone.module.backbone.'),
    'with scalars': {**WEIGHTS, 'version': 2},
}


def assert_weights(state_dict, expected=None):
    extra = set(state_dict) - {'steps'}
    assert extra == set(WEIGHTS)
    for name, value in (expected or WEIGHTS).items():
        assert torch.equal(state_dict[name], value)
        assert not state_dict[name].requires_grad


@pytest.mark.parametrize('form', FORMS)
def test_finds_the_weights_in_every_form(form, tmp_path):
    torch.save(FORMS[form], tmp_path / 'x.pth.tar')
    assert_weights(read_checkpoint(tmp_path / 'x.pth.tar'))


def test_reads_the_old_torch_format(tmp_path):
    torch.save(FORMS['training'], tmp_path / 'x.pt', _use_new_zipfile_serialization=False)
    assert_weights(read_checkpoint(str(tmp_path / 'x.pt')))


def test_reads_safetensors(tmp_path):
    save_file(prefixed('module.'), tmp_path / 'x.safetensors')
    assert_weights(read_checkpoint(tmp_path / 'x.safetensors'))


def test_takes_the_moving_average_only_when_asked(tmp_path):
    torch.save(FORMS['with average'], tmp_path / 'x.pth')
    assert_weights(read_checkpoint(tmp_path / 'x.pth', ema=True), AVERAGE)
    torch.save(FORMS['training'], tmp_path / 'none.pth')
    with pytest.raises(ValueError, match='no moving average of weights in .*none.pth.*optimizer'):
        read_checkpoint(tmp_path / 'none.pth', ema=True)


@pytest.mark.parametrize('prefix', ['student.net', 'student.net.', 'module.student.net'])
def test_takes_what_lies_below_an_explicit_prefix(prefix, tmp_path):
    other = prefixed('module.teacher.net.', AVERAGE)
    torch.save({**prefixed('module.student.net.'), **other}, tmp_path / 'x.pth')
    assert_weights(read_checkpoint(tmp_path / 'x.pth', prefix=prefix))
    with pytest.raises(ValueError, match="no name with prefix 'pupil'.*module.student.net"):
        read_checkpoint(tmp_path / 'x.pth', prefix='pupil')


class Payload:
    """Pickles as a call of ``exec``."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f'open({str(self.path)!r}, "w").close()',)


@pytest.mark.parametrize('zipped', [True, False])
def test_never_runs_code_of_a_checkpoint(zipped, tmp_path):
    proof = tmp_path / 'executed'
    torch.save(
        {'state_dict': WEIGHTS, 'args': Payload(proof)},
        tmp_path / 'x.pth',
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(UnsafeCheckpoint, match=r'x\.pth was not loaded.*call .*exec,'):
        read_checkpoint(tmp_path / 'x.pth')
    assert not proof.exists()


def test_refuses_a_bare_pickle_that_calls(tmp_path):
    (tmp_path / 'x.pth').write_bytes(pickle.dumps(Payload(tmp_path / 'executed'), protocol=2))
    with pytest.raises(ValueError, match=r'x\.pth'):
        read_checkpoint(tmp_path / 'x.pth')
    assert not (tmp_path / 'executed').exists()


def test_refuses_a_pickled_model(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'x.pth')
    with pytest.raises(UnsafeCheckpoint, match='torch.nn.modules.linear.Linear'):
        read_checkpoint(tmp_path / 'x.pth')


CORRUPT = {
    'empty.pth': b'',
    'page.pth': b'<!DOCTYPE html><html>404</html>',
    'noise.pth': bytes(range(256)) * 8,
    'zip.pth': b'PK\x03\x04' + bytes(64),
    'memo.pth': b'hello',
    'page.safetensors': b'<!DOCTYPE html><html>404</html>',
}


@pytest.mark.parametrize('name', CORRUPT)
def test_says_that_a_file_is_no_checkpoint(name, tmp_path):
    (tmp_path / name).write_bytes(CORRUPT[name])
    with pytest.raises(ValueError, match=name) as info:
        read_checkpoint(tmp_path / name)
    assert isinstance(info.value, UserError)
    assert not isinstance(info.value, UnsafeCheckpoint)


def packed(write):
    file = io.BytesIO()
    with write(file) as archive:
        archive.addfile(tarfile.TarInfo('x.pth'))
    return file.getvalue()


OTHERS = {
    'x.tar': (packed(lambda file: tarfile.open(fileobj=file, mode='w')), 'tar archive: unpack it'),
    'x.tgz': (packed(lambda file: tarfile.open(fileobj=file, mode='w:gz')), 'packed by gzip'),
    'pytorch_model.bin.index.json': (b'{"weight_map": {}}', 'the index of a checkpoint in several'),
    'model.safetensors.index.json': (b'{\n  "metadata": {}\n}', 'the index of a checkpoint in'),
    'x.pth': (b'version https://git-lfs.github.com/spec/v1\noid sha256:1', 'pointer of Git LFS'),
}


@pytest.mark.parametrize('name', OTHERS)
def test_tells_what_a_file_is_instead(name, tmp_path):
    content, told = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f'{name} .*{told}'):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize('share', [0.01, 0.5, 0.99])
def test_says_that_a_cut_off_file_is_no_checkpoint(share, tmp_path):
    torch.save({**WEIGHTS, 'large': torch.ones(100_000)}, tmp_path / 'x.pth')
    content = (tmp_path / 'x.pth').read_bytes()
    (tmp_path / 'x.pth').write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r'x\.pth could not be read as a checkpoint'):
        read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize('content', [{}, {'epoch': 3}, [1, 2], torch.ones(2), 'text'])
def test_says_that_a_file_holds_no_weights(content, tmp_path):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'no state dict in .*x\.pth'):
        read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize('name', ['missing.pth', 'missing.safetensors', '.'])
def test_names_a_missing_file(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / name)):
        read_checkpoint(tmp_path / name)


def test_names_an_unknown_listed_checkpoint():
    with pytest.raises(ValueError, match="unknown checkpoint 'torchvision://resnet5000'"):
        read_checkpoint('torchvision://resnet5000')


def test_says_where_to_put_what_cannot_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    with pytest.raises(UserError) as info:
        read_checkpoint('http://127.0.0.1:9/weights/x.pth')  # the discard port: nobody answers
    for part in ('http://127.0.0.1:9/weights/x.pth', 'init_cfg'):
        assert part in str(info.value)
    assert isinstance(info.value, OSError)
    file = Path(re.search(r'Put the file at (\S+x\.pth)', str(info.value)).group(1))
    assert file.is_relative_to(tmp_path / 'checkpoints')
    torch.save(WEIGHTS, file)
    assert_weights(read_checkpoint('http://127.0.0.1:9/weights/x.pth'))
    with pytest.raises(UserError):
        read_checkpoint('http://127.0.0.1:9/others/x.pth')


def test_takes_the_moving_average_of_mmengine(tmp_path):
    # Its EMAHook stores the average as the state dict and the plain weights beside it.
    weights = {'steps': torch.tensor(3), **prefixed('module.')}
    torch.save({'state_dict': AVERAGE, 'ema_state_dict': weights}, tmp_path / 'x.pth')
    assert_weights(read_checkpoint(tmp_path / 'x.pth', ema=True), AVERAGE)
    assert_weights(read_checkpoint(tmp_path / 'x.pth'), AVERAGE)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_downloads_once(suffix, tmp_path, monkeypatch):
    served, hub = tmp_path / 'served', tmp_path / 'hub'
    served.mkdir()
    if suffix == '.pth':
        torch.save(FORMS['training'], served / f'x{suffix}')
    else:
        save_file(WEIGHTS, served / f'x{suffix}')
    with serving(served, hub, monkeypatch) as address:
        assert_weights(read_checkpoint(f'{address}/x{suffix}'))
    assert_weights(read_checkpoint(f'{address}/x{suffix}'))  # from hub, the server is gone


class CutHandler(QuietHandler):
    """Tells more bytes than it sends."""

    def send_header(self, keyword, value):
        more = 100 if keyword == 'Content-Length' else 0
        super().send_header(keyword, str(int(value) + more) if more else value)


def test_a_cut_download_is_not_kept(tmp_path, monkeypatch):
    served = tmp_path / 'served'
    served.mkdir()
    torch.save(WEIGHTS, served / 'x.pth')
    size = (served / 'x.pth').stat().st_size
    with serving(served, tmp_path / 'hub', monkeypatch, CutHandler) as address:
        with pytest.raises(UnreachableCheckpoint, match=f'{size} of {size + 100} bytes'):
            read_checkpoint(f'{address}/x.pth')
    assert not [path for path in (tmp_path / 'hub').rglob('*') if path.is_file()]


class SilentHandler(QuietHandler):
    """Takes a request and says nothing for a second."""

    def do_GET(self):
        time.sleep(1)


def test_a_server_that_says_nothing_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, '_PATIENCE', 0.1)
    with serving(tmp_path, tmp_path / 'hub', monkeypatch, SilentHandler) as address:
        with pytest.raises(UnreachableCheckpoint, match='timed out'):
            read_checkpoint(f'{address}/x.pth')


def test_a_download_with_another_hash_is_not_kept(tmp_path, monkeypatch):
    served = tmp_path / 'served'
    served.mkdir()
    torch.save(WEIGHTS, served / 'x-0123abcd.pth')
    with serving(served, tmp_path / 'hub', monkeypatch) as address:
        with pytest.raises(UnreachableCheckpoint, match='begins with 0123abcd'):
            read_checkpoint(f'{address}/x-0123abcd.pth')
    assert not [path for path in (tmp_path / 'hub').rglob('*') if path.is_file()]


@pytest.mark.parametrize('content', [b'<html>log in</html>', b'PK\x03\x04 the beginning'])
def test_says_which_copy_to_remove(content, tmp_path, monkeypatch):
    served, hub = tmp_path / 'served', tmp_path / 'hub'
    served.mkdir()
    (served / 'x.pth').write_bytes(content)
    with serving(served, hub, monkeypatch) as address:
        with pytest.raises(CheckpointError, match='remove it to download') as error:
            read_checkpoint(f'{address}/x.pth')
        copy = re.search(r'copy is (\S+x\.pth)', str(error.value)).group(1)
        Path(copy).unlink()
        torch.save(WEIGHTS, served / 'x.pth')
        assert_weights(read_checkpoint(f'{address}/x.pth'))
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(tmp_path / 'x.pth')
    assert 'local copy' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'file'),
    [
        ('torchvision://resnet50', 'resnet50-0676ba61.pth'),
        ('openmmlab://resnet50_v1c', 'resnet50_v1c-2cccc1ad.pth'),
        ('mmcls://resnet50', 'resnet50_8xb32_in1k_20210831-ea4938fc.pth'),
    ],
)
def test_says_which_copy_of_a_listed_name_to_remove(name, file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    file = tmp_path / 'checkpoints' / file
    file.parent.mkdir()
    file.write_bytes(b'<html>log in</html>')
    with pytest.raises(CheckpointError, match=f'^{name} .* copy is {file}, remove it to download'):
        read_checkpoint(name)


def test_files_of_one_name_are_told_apart(tmp_path, monkeypatch):
    for name, weights in (('a', WEIGHTS), ('b', AVERAGE)):
        (tmp_path / name).mkdir()
        save_file(weights, tmp_path / name / 'model.safetensors')
    with serving(tmp_path, tmp_path / 'hub', monkeypatch) as address:
        for _ in range(2):
            assert_weights(read_checkpoint(f'{address}/a/model.safetensors'))
            assert_weights(read_checkpoint(f'{address}/b/model.safetensors'), AVERAGE)


def test_a_name_with_a_hash_is_one_file_wherever_it_comes_from(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    torch.save(WEIGHTS, tmp_path / 'x.pth')
    digest = hashlib.sha256((tmp_path / 'x.pth').read_bytes()).hexdigest()[:8]
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'x.pth').rename(tmp_path / 'checkpoints' / f'x-{digest}.pth')
    for folder in ('a', 'b'):
        assert_weights(read_checkpoint(f'http://127.0.0.1:9/{folder}/x-{digest}.pth'))
