"""Conversion of files, through the function and the command line."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch

from attnpool_backbones.backbones import PatchConvNet
from attnpool_backbones.checkpoints import convert_file, load_pretrained, read_checkpoint
from tests.golden import load_golden, official_state_dict

ARCH = dict(width=64, depth=4)


@pytest.fixture
def source(tmp_path):
    weights = official_state_dict(load_golden('patchconvnet_small'))
    average = {name: value + 1 for name, value in weights.items()}
    torch.save({'model': weights, 'model_ema': average, 'epoch': 3}, tmp_path / 'src.pth')
    return tmp_path / 'src.pth'


@pytest.mark.parametrize('name', ['dst.safetensors', 'dst.pth', 'new/folder/dst.pt'])
def test_converted_file_loads_like_its_source(name, source, tmp_path):
    report = convert_file(source, tmp_path / name)
    assert report.destination == str(tmp_path / name)
    assert report.backbone == 'PatchConvNet'
    assert (len(report.converted), len(report.leftovers), report.unexpected) == (56, 23, [])

    model, converted = PatchConvNet(ARCH, pooling=True), PatchConvNet(ARCH, pooling=True)
    load_pretrained(model, source)
    assert load_pretrained(converted, tmp_path / name).clean
    for key, value in model.state_dict().items():
        assert torch.equal(value, converted.state_dict()[key])


def test_converted_files_convert_to_themselves(source, tmp_path):
    convert_file(source, tmp_path / 'once.pth')
    convert_file(tmp_path / 'once.pth', tmp_path / 'twice.pth')
    assert (tmp_path / 'once.pth').read_bytes() == (tmp_path / 'twice.pth').read_bytes()


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_the_same_source_gives_the_same_bytes(suffix, source, tmp_path):
    # two keys in random order would be the same ten times in a row once in 512
    names = {convert_file(source, tmp_path / f'x{suffix}', publish=True).destination
             for _ in range(10)}  # fmt: skip
    assert len(names) == 1


def test_takes_the_moving_average_when_asked(source, tmp_path):
    convert_file(source, tmp_path / 'dst.pth', ema=True)
    plain, average = read_checkpoint(source), read_checkpoint(tmp_path / 'dst.pth')
    assert torch.equal(average['stem.0.weight'], plain['patch_embed.proj.0.0.weight'] + 1)


def test_reports_what_is_unexpected(source, tmp_path):
    weights = read_checkpoint(source)
    torch.save({**weights, 'extra.weight': torch.ones(1)}, tmp_path / 'src2.pth')
    report = convert_file(tmp_path / 'src2.pth', tmp_path / 'dst.pth')
    assert report.unexpected == ['extra.weight']
    assert 'unexpected, kept: extra.weight' in str(report)


def test_writes_nothing_when_it_fails(source, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError('disk full')

    monkeypatch.setattr('attnpool_backbones.atomic_files.os.replace', fail)
    with pytest.raises(OSError, match='disk full'):
        convert_file(source, tmp_path / 'dst.pth')
    assert [p.name for p in tmp_path.iterdir()] == ['src.pth']


def test_rejects_an_unknown_ending(source, tmp_path):
    with pytest.raises(ValueError, match=r"dst\.bin' must end in one of \.safetensors, \.pth"):
        convert_file(source, tmp_path / 'dst.bin')


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_published_files_carry_their_hash(suffix, source, tmp_path):
    report = convert_file(source, tmp_path / f's60{suffix}', publish=True)
    (written,) = tmp_path.glob('s60*')
    assert report.destination == str(written)
    digest = hashlib.sha256(written.read_bytes()).hexdigest()
    assert written.name == f's60-{digest[:8]}{suffix}'
    assert load_pretrained(PatchConvNet(ARCH), written).clean


def run_tool(repo_root, *args):
    return subprocess.run(
        [sys.executable, 'tools/model_converters/convert_checkpoint.py', *map(str, args)],
        cwd=repo_root,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(repo_root), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_tool_converts_and_reports(source, tmp_path, repo_root):
    result = run_tool(repo_root, source, tmp_path / 's60.safetensors', '--publish')
    assert result.returncode == 0, result.stderr
    (written,) = tmp_path.glob('s60*')
    assert str(written) in result.stdout
    assert 'PatchConvNet of facebookresearch/deit' in result.stdout
    assert load_pretrained(PatchConvNet(ARCH), written).clean


def test_tool_ends_with_a_clear_message(tmp_path, repo_root):
    torch.save({'features.weight': torch.ones(1)}, tmp_path / 'odd.pth')
    result = run_tool(repo_root, tmp_path / 'odd.pth', tmp_path / 'dst.pth')
    assert result.returncode != 0
    assert 'is of no known format; its names are features.weight' in result.stderr
    assert 'Traceback' not in result.stderr
    assert not (tmp_path / 'dst.pth').exists()
