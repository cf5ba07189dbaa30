import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from attnpool_backbones.cli import COMMANDS, main
from attnpool_backbones.cli.test import _tell
from attnpool_backbones.version import __version__

pytest.importorskip('mmdet')


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_every_command(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, '--help'])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert f'usage: attnpool {name}' in text and f'attnpool {name}' in text.partition('options:')[0]
    # every flag says what it does
    assert 'None' not in text


def test_help_lists_all_commands(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f'  {name} ' in text for name in COMMANDS)


def test_wrong_command_names_the_right_ones(capsys):
    with pytest.raises(SystemExit) as end:
        main(['trian'])
    assert end.value.code == 2
    assert 'train' in capsys.readouterr().err


def test_module_and_version():
    command = [sys.executable, '-m', 'attnpool_backbones', '--version']
    assert __version__ in subprocess.run(command, capture_output=True, text=True).stdout


def test_command_imports_neither_torch_nor_openmmlab_for_its_help():
    code = (
        'import sys; from attnpool_backbones.cli import main; main([]); '
        "print([m for m in sys.modules if m in ('torch', 'mmengine', 'mmdet', 'mmseg', 'cv2')])"
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == '[]', result.stderr


@pytest.mark.parametrize(
    'words, message',
    [
        (['train', 'nowhere', '--backbone', 'caformer_s18', '--head', 'upernet'], 'no such folder'),
        (['train', 'nowhere'], 'no such folder'),
        (['train', 'photos'], 'no images in it'),
        (['train', 'photos', '--backbone', 'x', '--head', 'upernet'], '--backbone x: not known'),
        (['train', 'a.py', '--head', 'upernet'], '--head: for a folder'),
        (['train', 'photos', '--auto-scale-lr'], '--auto-scale-lr: for a config'),
        (['train', 'photos', '--launcher', 'pytorch'], 'take --devices N for photos'),
        (['train', 'a.py', '--devices', 'two'], 'a number of devices'),
        (['train', 'a.py', '--batch', 'auto'], 'config not found'),
        (['verify', 'photos'], 'no images in it'),
        (['browse', 'photos'], 'no images in it'),
        (['predict', 'nowhere', 'photos'], 'no images in this folder'),
        (['predict', 'nowhere', 'a.jpg'], 'source not found'),
        (['test', 'nowhere'], 'model not found'),
        (['test', 'nowhere.onnx'], 'not there'),
        (['predict', 'nowhere.onnx', 'photos'], 'no images in this folder'),
        (['export', 'nowhere'], 'model not found'),
        (['export', 'nowhere', '--out', 'model.pt'], 'a file of --to onnx ends with .onnx'),
        (['export', 'nowhere', '--images', 'a.jpg'], 'source not found'),
        (['export', 'nowhere', '--int8'], 'needs --images SOURCE'),
    ],
)
def test_one_message_and_exit_code_2(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('photos').mkdir()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith('error: ')
    assert 'Traceback' not in error


@pytest.mark.parametrize(
    'flag, value, message',
    [
        ('--time', 'soon', "'soon' is no duration"),
        ('--time', '366d', "'366d' is no duration"),
        ('--resume', '', 'the name is empty'),
        ('--epochs', '0', 'no whole number from 1 on'),
        ('--lr', 'nan', 'no number above 0'),
        ('--batch', 'many', 'no whole number from 1 on'),
        ('--val-share', '1.5', 'no share between 0 and 1'),
        ('--size', '9', 'no whole number from 64 to 4096'),
        ('--format', 'tfrecord', 'coco'),
    ],
)
def test_values_of_flags_are_checked(flag, value, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(['train', 'photos', flag, value])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    'labels, head', [('coco', 'mask-rcnn'), ('voc', 'faster-rcnn'), ('masks', 'upernet')]
)
def test_head_is_that_of_the_labels(labels, head, tmp_path, monkeypatch, capsys):
    from attnpool_backbones.datasets.digit_scenes import generate
    from tests.own_data import scenes

    monkeypatch.chdir(tmp_path)
    generate(tmp_path / 'source', train=4, val=2, size=(96, 64))
    if labels == 'masks':
        scenes.masks(tmp_path / 'source', tmp_path / 'photos', 'ids')
    else:
        outlines = labels != 'voc'
        found = scenes.load_scenes(tmp_path / 'source')
        scenes.WRITERS[labels](found, tmp_path / 'photos', outlines)
    from attnpool_backbones.own_data.recognition import FORMATS

    form, reads = FORMATS[labels], []
    read = form.read
    monkeypatch.setattr(form, 'read', lambda *args: reads.append(args) or read(*args))
    assert main(['config', 'photos', '--backbone', 'caformer-nano', '--out', 'own.py']) in (0, None)
    assert len(reads) == 1
    assert f'--head {head}: ' in capsys.readouterr().out
    assert f'models/{head}' in Path('own.py').read_text()


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['--patience', '10'], 'has 10 validations in 24 epochs'),
        (['--patience', '9'], 'has 10 validations'),
        (['--patience', '8'], ''),
        (['--patience', '8', '--epochs', '12'], 'has 6 validations in 12 epochs'),
        (['--patience', '10', '--cfg-options', 'train_cfg.val_interval=1'], ''),
        (['--patience', '10', '--launcher', 'pytorch'], ''),  # the process that started it said so
        ([], ''),
    ],
)
def test_patience_that_is_too_long_is_told(words, told, tmp_path, monkeypatch, capsys):
    from attnpool_backbones.cli import train
    from attnpool_backbones.launching import launch
    from tests.engine.tiny_run import make_config

    monkeypatch.chdir(tmp_path)
    cfg = make_config('run')
    cfg.custom_imports = dict(imports='tests.engine.tiny_run')
    cfg.train_cfg = dict(by_epoch=True, max_epochs=24, val_interval=2, val_begin=5)
    Path('tiny.py').write_text(cfg.pretty_text)
    monkeypatch.setattr(launch, 'train', lambda args: 'run')
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    train.run(parser.parse_args(['tiny.py', *words]))
    said = capsys.readouterr().out
    assert told in said and ('will not end' in said) == bool(told)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of pictures with labels, in the working directory."""
    from attnpool_backbones.datasets.digit_scenes import generate
    from tests.own_data import scenes

    monkeypatch.chdir(tmp_path)
    generate(tmp_path / 'source', train=4, val=2, size=(96, 64))
    scenes.coco(scenes.load_scenes(tmp_path / 'source'), tmp_path / 'photos', True)


@pytest.mark.usefixtures('photos')
def test_labels_are_read_once_for_batch_and_time(monkeypatch, capsys):
    from attnpool_backbones.cli import train
    from attnpool_backbones.launching import forecast
    from attnpool_backbones.own_data import coco, preparing

    seen = []
    for module, name in ((coco, 'read'), (preparing, 'verify')):
        function = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda *a, name=name, function=function, **k: seen.append(name) or function(*a, **k),
        )
    cost = forecast.Forecast(1.0, 2, 12, 1.0, 1, 2**30)
    monkeypatch.setattr(forecast, 'largest_batch', lambda *a: 2)
    monkeypatch.setattr(forecast, 'forecast', lambda cfg: cost)
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    words = ['photos', '--backbone', 'caformer-nano', '--batch', 'auto', '--time', '60s']
    train.prepare_folder(parser.parse_args(words))
    assert seen == ['read', 'verify']
    text = Path('work_dirs/photos_mask-rcnn_caformer-nano.py').read_text()
    assert 'batch_size=2' in text and 'max_epochs = 24' in text
    assert '24 epochs of 4 images, batch 2' in capsys.readouterr().out


IN_CONFIG = 'own data', 'what is made of it'
"""Groups of flags that the config says to the processes which are started."""


def test_time_of_a_resumed_training_is_not_measured_again(tmp_path, monkeypatch, capsys):
    from mmengine.config import Config

    from attnpool_backbones.cli import train
    from attnpool_backbones.launching import forecast, launch

    source, run = tmp_path / 'own.py', tmp_path / 'run'
    source.write_text('train_cfg = dict(max_epochs=24, val_interval=1)')
    run.mkdir()
    cfg = Config.fromfile(source)
    cfg.work_dir = str(run)
    cost = forecast.Forecast(1.0, 2, 12, 1.0, 1, 2**30)
    monkeypatch.setattr(forecast, 'forecast', lambda cfg: cost)
    monkeypatch.setattr(launch, 'plan_training', lambda args: argparse.Namespace(cfg=cfg))
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)

    def epochs(*more: str) -> int:
        args = parser.parse_args([str(source), '--time', '60s', *more])
        train.prepare_config(args)
        return args.epochs

    measured = epochs()
    assert epochs('--resume') == measured != 7  # there is nothing yet
    (run / 'own.py').write_text('train_cfg = dict(max_epochs=7)')
    assert epochs('--resume') == measured  # it ended before its first checkpoint
    assert epochs() == measured
    cfg.resume = True
    assert epochs('--resume') == 7
    assert 'epochs: 7, with which the training began' in capsys.readouterr().out
    # a config of iterations is answered as without --resume
    (run / 'own.py').write_text('train_cfg = dict(max_iters=7)')
    assert epochs('--resume') == measured


def test_batch_of_a_resumed_training_is_not_measured_again(tmp_path, monkeypatch, capsys):
    from mmengine.config import Config

    from attnpool_backbones.cli import train
    from attnpool_backbones.launching import forecast, launch

    source, run = tmp_path / 'own.py', tmp_path / 'run'
    source.write_text('train_dataloader = dict(batch_size=1)')
    run.mkdir()
    cfg = Config.fromfile(source)
    cfg.work_dir = str(run)
    monkeypatch.setattr(forecast, 'largest_batch', lambda *_: 8)
    monkeypatch.setattr(train, 'count_images', lambda cfg: 100)
    monkeypatch.setattr(launch, 'plan_training', lambda args: argparse.Namespace(cfg=cfg))
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)

    def batch(*more: str, processes: int = 1) -> int:
        args = parser.parse_args([str(source), '--batch', 'auto', *more])
        train.prepare_config(args, processes)
        return args.batch

    assert batch('--resume') == 8  # there is nothing yet
    (run / 'own.py').write_text('train_dataloader = dict(batch_size=4)')
    assert batch('--resume') == 8  # it ended before its first checkpoint
    cfg.resume = True
    assert batch('--resume') == 4
    assert 'batch: 4, with which the training began' in capsys.readouterr().out
    # the config of a run has the share of each
    assert batch('--resume', processes=2) == 8
    cfg.resume = False
    assert batch() == 8


@pytest.mark.parametrize(
    'words',
    [[], ['--cfg-options', 'work_dir=other'], ['--work-dir', 'third'], ['--work-dir', 'run #1']],
)
def test_the_end_names_the_folder_of_the_run(words, tmp_path, monkeypatch, capsys):
    from attnpool_backbones.cli import train
    from attnpool_backbones.launching import launch
    from tests.engine.tiny_run import make_config

    monkeypatch.chdir(tmp_path)
    cfg = make_config('runs/of_the_config')
    cfg.custom_imports = dict(imports='tests.engine.tiny_run')
    Path('tiny.py').write_text(cfg.pretty_text)
    monkeypatch.setattr(launch, 'check_everything', lambda plan: None)
    monkeypatch.setattr(launch, 'run_training', lambda plan, rank: None)
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    train.run(parser.parse_args(['tiny.py', *words]))
    folder = words[-1].removeprefix('work_dir=') if words else 'runs/of_the_config'
    # can be pasted into a shell
    told = re.findall(': (attnpool .*)', capsys.readouterr().out)
    assert [shlex.split(command) for command in told] == [
        ['attnpool', 'figure', 'training', folder],
        ['attnpool', 'test', folder, '--report', 'report'],
        ['attnpool', 'predict', folder, 'IMAGES'],
    ]


OF_THE_START = {'help', 'time', 'devices', 'no_forecast', 'launcher', 'local_rank'}


def test_processes_are_started_with_all_flags(tmp_path, monkeypatch):
    from attnpool_backbones.cli import train
    from attnpool_backbones.launching import processes

    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    said = dict(batch='6', checkpoint_every='10m', resume='last.pth', work_dir='run',
                save_best='mIoU', lr='1e-05')  # fmt: skip
    words = ['--cfg-options', 'a.b=3', 'c=[1,2]', 'd=(x,y)', 'e=two words', 'f=None', 'g=true']
    in_config = [
        action
        for group in parser._action_groups
        if group.title in IN_CONFIG
        for action in group._group_actions
    ]
    passed_on = {'config', 'cfg_options', *said}
    for action in parser._actions:
        name = action.dest
        if not action.option_strings or name in OF_THE_START or action in in_config:
            continue
        passed_on.add(name)
        if name != 'cfg_options':
            value = [] if action.nargs == 0 else [said.get(name, '3')]
            words += [action.option_strings[0], *value]
    given = parser.parse_args(['own.py', *words])
    given.config = given.source
    unsaid = parser.parse_args(['own.py'])
    assert all(getattr(given, name) != getattr(unsaid, name) for name in passed_on - {'config'})
    started = []

    def start(command, count):
        started.append((command, count))
        return 143

    monkeypatch.setattr(processes, 'run_group', start)
    assert train.train_in_processes(given, 2) == 143
    ((command, count),) = started
    assert count == 2
    again = parser.parse_args(command[command.index('train') + 1 :])
    again.config = again.source
    expected = {name: getattr(given, name) for name in passed_on} | dict(batch=3)
    assert {name: getattr(again, name) for name in passed_on} == expected
    assert again.launcher == 'pytorch'


@pytest.mark.parametrize(('options', 'batch'), [([], '4'), (['--batch', '6'], '3')])
def test_batch_of_the_options_is_shared(options, batch, tmp_path, monkeypatch):
    from attnpool_backbones.cli import train
    from attnpool_backbones.launching import processes

    config = tmp_path / 'own.py'
    config.write_text("default_scope = 'mmengine'\ntrain_dataloader = dict(batch_size=2)")
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    words = ['--cfg-options', 'train_dataloader.batch_size=8', *options]
    args = parser.parse_args([str(config), *words])
    args.config = args.source
    started = []
    monkeypatch.setattr(processes, 'run_group', lambda command, count: started.extend(command))
    train.train_in_processes(args, 2)
    assert started[started.index('--batch') + 1] == batch


@pytest.mark.parametrize('rank', [None, '1'])
def test_process_of_several_ends_at_once(rank, monkeypatch):
    from attnpool_backbones.cli import models

    ended = []
    monkeypatch.delenv('RANK', raising=False)
    if rank is not None:
        monkeypatch.setenv('RANK', rank)
    monkeypatch.setattr('attnpool_backbones.command_line.end_now', ended.append)
    monkeypatch.setattr(models, 'run', lambda args: 7)
    monkeypatch.setattr(sys, 'argv', ['attnpool', 'models'])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 7
    assert ended == ([] if rank is None else [7])


@pytest.mark.parametrize('words', [['verify', 'photos', '--workers', '1'], ['browse', 'photos']])
@pytest.mark.usefixtures('photos')
def test_a_folder_is_listed_once(words, monkeypatch, capsys):
    from attnpool_backbones.own_data.folder import Folder

    opened = []
    make = Folder.__init__
    monkeypatch.setattr(Folder, '__init__', lambda self, *a: opened.append(a) or make(self, *a))
    assert main(words) in (0, None)
    assert len(opened) == 1
    assert 'nothing is wrong' in capsys.readouterr().out or Path('browse/index.html').exists()


@pytest.mark.usefixtures('photos')
def test_options_that_do_not_fit_own_data(capsys):
    assert main(['browse', 'photos', '--cfg-options', 'work_dir.x=1']) == 2
    assert '--cfg-options do not fit photos: ' in capsys.readouterr().err


def test_metrics_of_any_kind_are_told(capsys):
    """A test of hours does not end in an error because somebody's metric gives a text."""
    args = argparse.Namespace(local_rank=0)
    _tell(args, {'coco/bbox_mAP': 0.5, 'images': 3, 'worst': 'a.jpg'})
    assert capsys.readouterr().out == 'coco/bbox_mAP: 0.5000  images: 3  worst: a.jpg\n'
    _tell(args, {})  # results were only written
    _tell(argparse.Namespace(local_rank=1), {'mIoU': 1.0})
    assert not capsys.readouterr().out
