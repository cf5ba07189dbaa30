"""What has a checksum is compared with it, by every reader."""

import hashlib
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file

from attnpool_backbones.backbones import AttnResNet
from attnpool_backbones.checkpoints import CheckpointError, convert_file, read_checkpoint
from attnpool_backbones.checkpoints.reading import read_content
from attnpool_backbones.launching.latest_checkpoint import examine

ARCH = dict(depths=(1, 1, 1, 1), widths=(8, 8, 8, 8))
READERS = (read_checkpoint, lambda path: CheckpointLoader.load_checkpoint(str(path)))


@pytest.fixture(scope='module')
def weights():
    return AttnResNet(ARCH).state_dict()


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 0x10
    file.write_bytes(content)


def refuse(path: Path) -> None:
    for read in READERS:
        with pytest.raises(CheckpointError, match=path.name):
            read(path)
    assert examine(path).fault


def test_no_member_of_a_zip_file_may_change(weights, tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'state_dict': weights}, path)
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if '/data' in m.filename and m.file_size]
    whole = path.read_bytes()
    for member in members[::7]:
        path.write_bytes(whole)
        header = whole[member.header_offset :]
        lengths = int.from_bytes(header[26:28], 'little') + int.from_bytes(header[28:30], 'little')
        start = member.header_offset + 30 + lengths
        flip(path, start + member.file_size // 2)
        refuse(path)


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_converted_files_have_checksums(suffix, weights, tmp_path):
    torch.save(weights, tmp_path / 'source.pth')
    path = tmp_path / f'x{suffix}'
    convert_file(tmp_path / 'source.pth', path)
    read_checkpoint(path)
    size = path.stat().st_size
    for share in (0.3, 0.5, 0.7):
        whole = path.read_bytes()
        flip(path, int(size * share))
        refuse(path)
        path.write_bytes(whole)
    read_checkpoint(path)


def test_names_in_safetensors_are_covered(weights, tmp_path):
    torch.save(weights, tmp_path / 'source.pth')
    path = tmp_path / 'x.safetensors'
    convert_file(tmp_path / 'source.pth', path)
    position = path.read_bytes().index(b'layer3.0.bn1.weight')
    flip(path, position + len(b'layer3.0.b'))
    refuse(path)


@pytest.mark.parametrize('kind', ['old format', 'safetensors'])
def test_a_name_with_a_hash_is_held_to_it(kind, weights, tmp_path):
    path = tmp_path / ('x.safetensors' if kind == 'safetensors' else 'x.pth')
    if kind == 'safetensors':
        save_file({name: value.contiguous() for name, value in weights.items()}, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=False)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    named = path.rename(tmp_path / f'x-{digest}{path.suffix}')
    read_checkpoint(named)
    flip(named, named.stat().st_size - 3)
    refuse(named)
    # a date at the place of a hash is none
    read_checkpoint(named.rename(tmp_path / f'x-20201231{path.suffix}'))


def test_every_cut_is_noticed(weights, tmp_path):
    for name, options in (('zip', {}), ('old', dict(_use_new_zipfile_serialization=False))):
        path = tmp_path / f'{name}.pth'
        torch.save(weights, path, **options)
        whole = path.read_bytes()
        for share in (0.02, 0.2, 0.5, 0.9, 0.999):
            path.write_bytes(whole[: int(len(whole) * share)])
            refuse(path)
        for size in (0, 1, 2, 8):
            path.write_bytes(whole[:size])
            refuse(path)


def test_files_without_checksums_load(weights, tmp_path):
    """Torch can be told not to compute any."""
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights, tmp_path / 'x.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    loaded = read_content(str(tmp_path / 'x.pth'))
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
