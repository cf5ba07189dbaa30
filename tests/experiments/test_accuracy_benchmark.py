"""The benchmark of the nano sizes; the training itself is tested in tests/tools."""

import csv
import io
import json
import os
import runpy
import shutil
import signal
import sys
import threading

import pytest
import torch

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.command_line import UserError
from attnpool_backbones.experiments import accuracy_benchmark
from attnpool_backbones.experiments.accuracy_benchmark import (
    COLUMNS,
    DETECTION,
    ENTRIES,
    SEGMENTATION,
    comma_separated,
    markdown,
    measure_speeds,
    picture,
    publish,
    read_rows,
    run,
    train_one,
)
from attnpool_backbones.experiments.digit_training import Result
from attnpool_backbones.zoo.config_names import families
from attnpool_backbones.zoo.metafiles import read_metafile
from attnpool_backbones.zoo.tables import make_outputs
from tests.patience import comes_true

ROWS = [
    {key: 1.25 + i for key, _ in COLUMNS.values()}
    | dict(backbone=f'net{i}', machine='a machine', speed_machine='a machine')
    for i in range(2)
]


def test_every_family_and_the_baselines_take_part(repo_root):
    entered = {path.split('/')[0] for heads in ENTRIES.values() for path in heads.values()}
    assert entered == set(families(repo_root / 'configs'))
    for heads in ENTRIES.values():
        assert set(heads) == {'mask-rcnn', 'upernet'}
        for path in heads.values():
            assert (repo_root / 'configs' / path).is_file()


def test_tables_and_picture():
    lines = markdown(ROWS).splitlines()
    assert lines[2].startswith('| net0 | 1.2 | 1.2 |')
    assert lines[-1] == 'Machine: a machine.'
    assert {line.count('|') for line in lines[:4]} == {len(COLUMNS) + 1}
    read = list(csv.DictReader(io.StringIO(comma_separated(ROWS))))
    assert [row['backbone'] for row in read] == ['net0', 'net1']
    assert read[1]['mIoU'] == '2.25'
    assert picture(ROWS).startswith(b'\x89PNG')


def test_tables_tell_on_which_machine_speeds_were_measured():
    rows = [ROWS[0], ROWS[1] | dict(speed_machine='another one')]
    both = 'a machine (images/s: another one)'
    assert markdown(rows).splitlines()[-1] == f'Machine: a machine; {both}.'
    read = list(csv.DictReader(io.StringIO(comma_separated(rows))))
    assert [row['machine'] for row in read] == ['a machine', both]


# the least that a training could go on from
TRAINING = dict(
    meta=dict(epoch=3, iter=9),
    state_dict=dict(weight=torch.zeros(1)),
    message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
    optimizer={},
)


def result(labels, memory, minutes):
    numbers = dict(parameters=10**6, macs=10**9, minutes=minutes, memory=memory)
    return Result('name', 'model', dict.fromkeys(labels, 50.0), **numbers, command='command')


def test_a_row_has_the_memory_of_the_training_even_if_another_process_did_it(tmp_path, monkeypatch):
    # What an interrupted benchmark finds: far more memory than this process has ever had.
    found = {
        'detection': result(DETECTION.values(), 1e6, 2.0),
        'segmentation': result(SEGMENTATION.values(), 10.0, 1.0),
    }
    starts = []

    def trained(name, config, labels, folder, start, tell):
        starts.append(start)
        write_atomically(b'elsewhere/epoch_3.pth', folder / 'last_checkpoint')
        torch.save(TRAINING, folder / 'epoch_3.pth')
        return found[folder.name], None

    monkeypatch.setattr(accuracy_benchmark, 'pretrain_backbone', lambda *_: None)
    monkeypatch.setattr(accuracy_benchmark, 'train_and_evaluate', trained)
    train_one('coatnet-nano', tmp_path, print)
    row = json.loads((tmp_path / 'coatnet-nano' / 'row.json').read_text())
    assert (row['memory'], row['minutes'], row['bbox mAP'], row['mIoU']) == (1e6, 3.0, 50.0, 50.0)
    folder = tmp_path / 'coatnet-nano'
    assert starts == [
        str(folder / 'pretraining/backbone.pth'),
        str(folder / 'detection/epoch_3.pth'),  # wherever the folder was when it was trained
    ]


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_the_minutes_of_a_gpu_bear_its_name(device, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy_benchmark, 'pretrain_backbone', lambda *_: None)
    monkeypatch.setattr(accuracy_benchmark, 'find_resumable_checkpoint', lambda _: None)
    monkeypatch.setattr(
        accuracy_benchmark, 'train_and_evaluate',
        lambda name, config, labels, *_: (result(labels.values(), 1.0, 2.0), None),
    )  # fmt: skip
    monkeypatch.setattr(accuracy_benchmark, 'get_device', lambda: device)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'a GPU')
    monkeypatch.setattr(accuracy_benchmark, 'processor_name', lambda: 'a processor')
    train_one('coatnet-nano', tmp_path, print)
    row = json.loads((tmp_path / 'coatnet-nano' / 'row.json').read_text())
    assert row['machine'].startswith('a GPU, ') == (device == 'cuda')
    assert 'threads of a processor, torch' in row['machine']


def test_a_training_ends_with_the_benchmark(tmp_path, monkeypatch):
    done = []
    training = 'attnpool_backbones.experiments.digit_training.pretrain_backbone'
    ending = 'attnpool_backbones.process_lifetime.end_with_parent'
    monkeypatch.setattr(ending, lambda: done.append('bound to its parent'))
    monkeypatch.setattr(training, lambda *_: done.append('training') or sys.exit(3))
    monkeypatch.setattr(sys, 'argv', ['name', 'coatnet-nano', str(tmp_path)])
    monkeypatch.delitem(sys.modules, accuracy_benchmark.__name__)
    with pytest.raises(SystemExit):
        runpy.run_module(accuracy_benchmark.__name__, run_name='__main__')
    assert done == ['bound to its parent', 'training']


def test_speeds_are_those_of_the_checkpoints_that_are_there(tmp_path, monkeypatch):
    measured = []

    def measure(work_dir, names):
        measured.append(names)
        return dict.fromkeys(names, float(len(measured)))

    monkeypatch.setattr(accuracy_benchmark, 'images_per_second', measure)
    folder = tmp_path / 'coatnet-nano' / 'detection'
    folder.mkdir(parents=True)
    write_atomically(b'{}', tmp_path / 'coatnet-nano' / 'row.json')
    # of an earlier version, which did not keep whose they are
    (tmp_path / 'speeds.json').write_text('{"coatnet-nano": 12.3}')
    cases = ((0.0, 'one', 1.0), (1.0, 'one', 2.0), (1.0, 'another', 3.0))
    for value, processor, speeds in cases:
        monkeypatch.setattr(accuracy_benchmark, 'processor_name', lambda name=processor: name)
        state = dict(weight=torch.full((1,), value))
        torch.save(TRAINING | dict(state_dict=state), folder / 'epoch_3.pth')
        write_atomically(b'epoch_3.pth', folder / 'last_checkpoint')
        for _ in range(2):
            measure_speeds(tmp_path, ['coatnet-nano'], print)
            (row,) = read_rows(tmp_path)
            assert row['images_per_second'] == speeds
            assert f'threads of {processor}, torch' in row['speed_machine']
    for file in ('epoch_3.pth', 'last_checkpoint'):
        (folder / file).unlink()
    with pytest.raises(UserError, match='detection: no checkpoint in it'):
        measure_speeds(tmp_path, ['coatnet-nano'], print)


def test_an_unknown_name_is_answered_with_the_right_ones(tmp_path):
    with pytest.raises(UserError, match='resnet-huge.*coatnet-nano'):
        run(tmp_path, ['resnet-huge'], print)


def test_an_interrupted_training_may_save(tmp_path, monkeypatch):
    program = tmp_path / 'python'
    program.write_text(f'#!/bin/sh\ntouch {tmp_path}/begun\nsleep 1\ntouch {tmp_path}/saved\n')
    program.chmod(0o755)
    monkeypatch.setattr(accuracy_benchmark.sys, 'executable', str(program))
    monkeypatch.setattr(accuracy_benchmark, 'make_data', lambda tell: None)

    def interrupt():
        assert comes_true((tmp_path / 'begun').exists, 30)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ['coatnet-nano'], print)
    thread.join()
    assert (tmp_path / 'saved').exists()


def test_publish(tmp_path, repo_root):
    work_dir, clone = tmp_path / 'work', tmp_path / 'clone'
    row = {key: 12.3 for key, _ in COLUMNS.values()} | dict(
        backbone='coatnet-nano', machine='a machine', speed_machine='another one'
    )
    write_atomically(json.dumps(row).encode(), work_dir / 'coatnet-nano' / 'row.json')
    speeds = dict(checkpoints={}, machine='another one', images_per_second={'coatnet-nano': 12.3})
    (work_dir / 'speeds.json').write_text(json.dumps(speeds))
    (work_dir / 'results.md').write_text(markdown([row]))
    (work_dir / 'results.csv').write_text(comma_separated([row]))
    (work_dir / 'results.png').write_bytes(picture([row]))
    shutil.copytree(repo_root / 'configs', clone / 'configs')
    shutil.copytree(repo_root / 'docs', clone / 'docs')
    shutil.copy(repo_root / 'model-index.yml', clone)

    publish(work_dir, clone)

    page = (clone / 'docs/benchmark/README.md').read_text()
    assert f'<!-- benchmark -->\n{markdown([row])}<!-- /benchmark -->\n' in page
    assert (clone / 'docs/benchmark/results.csv').read_text() == comma_separated([row])
    models = {m['Name']: m for m in read_metafile(clone / 'configs/coatnet/metafile.yml')['Models']}
    detector = models['mask-rcnn_coatnet-nano_slim-fpn_digit-scenes']
    assert [result['Metrics'] for result in detector['Results']] == [
        dict(bbox_mAP=12.3, bbox_mAP_s=12.3, bbox_mAP_m=12.3), dict(segm_mAP=12.3)
    ]  # fmt: skip
    assert detector['Measurement'] == {
        'Command': 'python tools/analysis_tools/accuracy_benchmark.py --only coatnet-nano',
        'Machine': 'a machine (images/s: another one)',
        'Images per second': 12.3, 'Memory (MiB)': 12,
    }  # fmt: skip
    segmentor = models['upernet_coatnet-nano_slim_digit-scenes']
    assert segmentor['Results'][0]['Metrics'] == dict(mIoU=12.3)
    assert segmentor['Measurement']['Machine'] == 'a machine'
    table = (clone / 'configs/coatnet/README.md').read_text()
    assert 'box 12.3, mask 12.3' in table
    assert '| 12.3 | 12 MiB | a machine (images/s: another one) |' in table
    assert all(output.is_current() for output in make_outputs(clone))
