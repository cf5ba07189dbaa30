"""All that honest checkpoints hold loads as it was saved."""

import argparse
import pickle
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from attnpool_backbones.checkpoints import CheckpointError
from attnpool_backbones.checkpoints.reading import read_content
from tests.engine.tiny_run import make_config, make_runner


def save_and_load(content: object, folder: Path) -> object:
    torch.save(content, folder / 'file.pth')
    return read_content(str(folder / 'file.pth'))


def test_training_checkpoint_of_mmengine(tmp_path):
    runner = make_runner('safe', make_config(tmp_path, checkpoint=dict(type='CheckpointHook')))
    runner.train()
    checkpoint = read_content(str(tmp_path / 'epoch_4.pth'))
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
def test_numpy_arrays(name, tmp_path):
    array = ARRAYS[name]
    first = save_and_load([array], tmp_path)[0]
    # a loaded array is stored as an ordinary one again
    second = pickle.loads(pickle.dumps(first))
    assert type(second) is np.ndarray
    for loaded in (first, second):
        # numpy itself turns foreign byte orders into the machine's own
        assert loaded.dtype == array.dtype.newbyteorder('=') and np.array_equal(loaded, array)


@pytest.mark.parametrize('number', [np.float64(0.5), np.int64(-3), np.float32(2), np.bool_(True)])
def test_numpy_scalars(number, tmp_path):
    loaded = save_and_load({'best_score': number}, tmp_path)['best_score']
    assert type(loaded) is type(number) and loaded == number


def test_namespace_of_official_checkpoints(tmp_path):
    args = argparse.Namespace(model='S60', lr=0.1, betas=[0.9, 0.999])
    loaded = save_and_load({'model': {'w': torch.ones(2)}, 'args': args}, tmp_path)
    assert loaded['args'] == args and loaded['model']['w'].sum() == 2


def test_statistics_methods_are_not_taken_from_a_file(tmp_path):
    before = dict(HistoryBuffer._statistics_methods)
    loaded = save_and_load(HistoryBuffer([1.0, 3.0], [1, 1]), tmp_path)
    assert loaded.statistics('mean') == 2
    assert HistoryBuffer._statistics_methods == before


@pytest.mark.parametrize('zipped', [True, False])
def test_tensors(zipped, tmp_path):
    base = torch.arange(24.0)
    tensors = dict(
        view=base[3:15].view(3, 4).t(),
        shared=base[:2],
        scalar=torch.tensor(3),
        empty=torch.empty(0, 3),
        half=torch.randn(5).half(),
        bfloat16=torch.randn(3).bfloat16(),
        complex=torch.tensor([1 + 2j]),
        flag=torch.tensor([True, False]),
        parameter=torch.nn.Parameter(torch.ones(2)),
        buffer=torch.nn.Buffer(torch.ones(2)),
    )
    if zipped:
        tensors.update(new=torch.tensor([1, 2], dtype=torch.uint16))
    torch.save(tensors, tmp_path / 'file.pth', _use_new_zipfile_serialization=zipped)
    for device in ('cpu', 'meta'):
        loaded = read_content(str(tmp_path / 'file.pth'), device)
        assert list(loaded) == list(tensors)
        for name, tensor in tensors.items():
            assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
            assert loaded[name].device.type == device
            assert device == 'meta' or torch.equal(loaded[name], tensor)
    assert read_content(str(tmp_path / 'file.pth'))['view'].stride() == (1, 4)


def test_shared_memory_stays_shared(tmp_path):
    weight = torch.zeros(4)
    loaded = save_and_load({'a': weight, 'b': weight[1:]}, tmp_path)
    loaded['a'][2] = 1
    assert loaded['b'].tolist() == [0, 1, 0]


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_protocols(protocol, tmp_path):
    content = {
        'state_dict': OrderedDict(w=torch.ones(2)),
        'meta': [(1, 2.5, None, True, 'ä'), {'set': {1, 2}, 'frozen': frozenset([3])}, b'raw'],
        'schedule': Counter({8: 1}),
        'large': 2**100,
        'size': torch.Size([1, 2]),
        'dtype': torch.float16,
    }
    torch.save(content, tmp_path / 'file.pth', pickle_protocol=protocol)
    assert str(read_content(str(tmp_path / 'file.pth'))) == str(content)


def test_versions_of_modules_are_kept(tmp_path):
    state_dict = torch.nn.BatchNorm2d(2).state_dict()
    assert save_and_load(state_dict, tmp_path)._metadata == state_dict._metadata


UNUSABLE = {
    'sparse': lambda: torch.eye(3).to_sparse(),
    'quantised': lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    'meta': lambda: torch.ones(2, device='meta'),
    'negated': lambda: torch.tensor([1 + 2j]).conj().imag,
    'negated or conjugated': lambda: torch.tensor([1 + 2j]).conj(),
}


@pytest.mark.parametrize('kind', UNUSABLE)
@pytest.mark.filterwarnings('ignore')
def test_other_kinds_of_tensors_are_named(kind, tmp_path):
    with pytest.raises(CheckpointError, match=rf'file.pth.*layer.0.weight is a {kind}'):
        save_and_load({'layer.0.weight': UNUSABLE[kind]()}, tmp_path)
