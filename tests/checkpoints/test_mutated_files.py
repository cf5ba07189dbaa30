"""Whatever becomes of the bytes of a checkpoint: the right weights, or one clear error."""

import random
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer

from attnpool_backbones.checkpoints import CheckpointError, read_checkpoint
from attnpool_backbones.checkpoints.safetensors_files import safetensors_bytes

FAST, SLOW = 70, 700  # of each of three forms


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f'layer{i}.weight': torch.randn(20, 3, generator=generator) for i in range(12)}


def write(form: str, path: Path) -> bytes:
    if form == 'safetensors':
        path.write_bytes(safetensors_bytes(weights(), {'backbone': 'X'}))
    else:
        content = {
            'state_dict': OrderedDict(weights()),
            'meta': {'epoch': 3, 'classes': ('a', 'b')},
            'message_hub': {'log_scalars': {'loss': HistoryBuffer([1.0, 2.0], [1, 1])}},
        }
        torch.save(content, path, _use_new_zipfile_serialization=form == 'zip')
    return path.read_bytes()


def mutate(content: bytes, seed: int) -> bytes:
    """Flips bits, overwrites, moves, cuts or repeats some bytes."""
    draw = random.Random(seed)
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 3, 20))):
        if not changed:
            break
        place, length = draw.randrange(len(changed)), draw.choice((1, 1, 2, 8, 200))
        part = slice(place, place + length)
        kind = draw.randrange(5)
        if kind == 0:
            changed[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[part] = draw.randbytes(len(changed[part]))
        elif kind == 2:
            changed[part] = b''
        elif kind == 3:
            changed[part] = bytes(changed[part]) * 2
        else:
            changed = changed[: max(place, 1)]
    return bytes(changed)


def check(form: str, seed: int, folder: Path) -> None:
    path = folder / f'{form}.pth'
    path.write_bytes(mutate(write(form, path), seed))
    try:
        loaded = read_checkpoint(path)
    except CheckpointError as error:
        assert str(path) in str(error) and '\n' not in str(error)
        return
    if form == 'old':  # nothing in such a file tells whether its numbers are right
        return
    expected = weights()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())


def given_seeds(count: int):
    quick = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return lambda test: settings(
        max_examples=count, deadline=None, derandomize=True, suppress_health_check=quick
    )(given(seed=st.integers(0, 2**32))(test))


@pytest.mark.parametrize('form', ['zip', 'old', 'safetensors'])
@given_seeds(FAST)
def test_mutated_files(form, tmp_path, seed):
    check(form, seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('form', ['zip', 'old', 'safetensors'])
@given_seeds(SLOW)
def test_more_mutated_files(form, tmp_path, seed):
    check(form, seed + 2**32, tmp_path)
