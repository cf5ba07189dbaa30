"""A training checkpoint loads as data; a checkpoint that wants to be a program does not load."""

import argparse
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

from attnpool_backbones.checkpoints.safe_globals import register_safe_globals
from tests.engine.tiny_run import make_config, make_runner

pytestmark = pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.6'),
    reason='torch.load is not restricted by default before 2.6',
)


@pytest.fixture(autouse=True)
def registered() -> None:
    register_safe_globals()
    register_safe_globals()


def save_and_load(content: object, folder: Path) -> object:
    torch.save(content, folder / 'file.pth')
    return torch.load(folder / 'file.pth', weights_only=True)


def test_training_checkpoint_of_mmengine(tmp_path: Path) -> None:
    runner = make_runner('safe', make_config(tmp_path, checkpoint=dict(type='CheckpointHook')))
    runner.train()
    checkpoint = torch.load(tmp_path / 'epoch_4.pth', weights_only=True)
    assert checkpoint['meta']['epoch'] == 4
    losses = checkpoint['message_hub']['log_scalars']['train/loss']
    assert type(losses) is HistoryBuffer
    history, counts = runner.message_hub.get_scalar('train/loss').data
    assert type(losses.data[0]) is np.ndarray
    assert np.array_equal(losses.data[0], history) and np.array_equal(losses.data[1], counts)
    assert losses.statistics('mean', 3) == pytest.approx(history[-3:].mean())
    # and once more, from what was loaded
    again = save_and_load(checkpoint, tmp_path)
    assert np.array_equal(again['message_hub']['log_scalars']['train/loss'].data[0], history)


ARRAYS = {
    'float': np.arange(6.0).reshape(2, 3),
    'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'big_endian': np.arange(4, dtype='>i4'),
    'bool': np.array([True, False]),
    'half': np.array([0.5, 2], dtype='f2'),
    'complex': np.array([1j]),
    'text': np.array(['zero', 'one']),
    'empty': np.zeros((0, 3)),
    'scalar_shape': np.array(2.0),
}


@pytest.mark.parametrize('name', ARRAYS)
def test_numpy_arrays(name: str, tmp_path: Path) -> None:
    array = ARRAYS[name]
    first = save_and_load([array], tmp_path)[0]
    # a loaded array is stored as an ordinary one again
    second = pickle.loads(pickle.dumps(first))
    assert type(second) is np.ndarray
    for loaded in (first, second):
        # numpy itself turns foreign byte orders into the machine's own
        assert loaded.dtype == array.dtype.newbyteorder('=') and np.array_equal(loaded, array)


@pytest.mark.parametrize('number', [np.float64(0.5), np.int64(-3), np.float32(2), np.bool_(True)])
def test_numpy_scalars(number: np.generic, tmp_path: Path) -> None:
    loaded = save_and_load({'best_score': number}, tmp_path)['best_score']
    assert type(loaded) is type(number) and loaded == number


def test_namespace_of_official_checkpoints(tmp_path: Path) -> None:
    args = argparse.Namespace(model='S60', lr=0.1, betas=[0.9, 0.999])
    loaded = save_and_load({'model': {'w': torch.ones(2)}, 'args': args}, tmp_path)
    assert loaded['args'] == args and loaded['model']['w'].sum() == 2


class Reduced:
    """Pickles as a call of ``function``."""

    def __init__(self, function: object, *args: object, state: object = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple:
        return self.parts

    def __call__(self) -> None:
        """Lets the result of a call be called in turn."""


def marked_file(folder: Path) -> str:
    return f'touch {folder / "executed"}'


ATTACKS = {
    'system': lambda folder: Reduced(os.system, marked_file(folder)),
    'eval': lambda folder: Reduced(eval, f'__import__("os").system("{marked_file(folder)}")'),
    'getattr_of_module': lambda folder: Reduced(
        Reduced(getattr, Reduced(__import__, 'os'), 'system'), marked_file(folder)
    ),
    'getattr_of_tensor': lambda folder: Reduced(getattr, torch.zeros(1), 'backward'),
    'getattr_dunder': lambda folder: Reduced(getattr, HistoryBuffer, '__init__'),
    'getattr_globals': lambda folder: Reduced(
        getattr, Reduced(getattr, HistoryBuffer, 'mean'), '__globals__'
    ),
    'buffer_constructor': lambda folder: Reduced(HistoryBuffer, [1], [1]),
    'object_array': lambda folder: np.array([{}], dtype=object),
    'record_array': lambda folder: np.zeros(1, dtype=[('a', 'f8')]),
    'object_dtype': lambda folder: Reduced(np.dtype, 'O', False, True),
    'array_over_memory': lambda folder: Reduced(np.ndarray, (4,), 'f8', b'0' * 32),
    'flags_of_shared_dtype': lambda folder: Reduced(
        np._core.multiarray._reconstruct,
        np.ndarray,
        (0,),
        b'b',
        state=(
            1,
            (1,),
            Reduced(np.dtype, 'f8', False, False, state=(3, '!', None)),
            False,
            b'12345678',
        ),
    ),
    'statistics_method': lambda folder: {'buffer': Buffer(os.system)},
}


class Buffer(HistoryBuffer):
    """A history that wants to bring a statistics method of its own."""

    def __init__(self, method: object) -> None:
        super().__init__([1.0], [1])
        self.method = method

    def __reduce__(self) -> tuple:
        return (
            HistoryBuffer.__new__,
            (HistoryBuffer,),
            dict(self.__dict__, statistics_methods={'mean': self.method}),
        )


@pytest.mark.parametrize('name', ATTACKS)
def test_programs_are_refused(name: str, tmp_path: Path) -> None:
    torch.save({'state_dict': {}, 'payload': ATTACKS[name](tmp_path)}, tmp_path / 'file.pth')
    with pytest.raises((pickle.UnpicklingError, ValueError, TypeError)):
        torch.load(tmp_path / 'file.pth', weights_only=True)
    assert not (tmp_path / 'executed').exists()


def test_arrays_are_filled_only_once(tmp_path: Path) -> None:
    array = torch.load(_saved(np.arange(3.0), tmp_path), weights_only=True)
    with pytest.raises(ValueError, match='twice'):
        array.__setstate__((1, (1,), None, False, b''))


def test_statistics_methods_are_not_taken_from_a_file(tmp_path: Path) -> None:
    before = dict(HistoryBuffer._statistics_methods)
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    loaded = save_and_load(buffer, tmp_path)
    assert loaded.statistics('mean') == 2
    assert HistoryBuffer._statistics_methods == before


def _saved(content: object, folder: Path) -> Path:
    torch.save(content, folder / 'saved.pth')
    return folder / 'saved.pth'
