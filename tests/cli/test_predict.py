"""What `attnpool predict` does with files, whatever the model says."""

import io
import json
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.nn import Module

from attnpool_backbones.atomic_files import _host
from attnpool_backbones.cli import main
from attnpool_backbones.command_line import UserError
from attnpool_backbones.inference.prediction import Detections, Segmentation
from attnpool_backbones.inference.predictor import Predictor
from attnpool_backbones.inference.sources import open_source
from attnpool_backbones.inference.writing import Outputs
from attnpool_backbones.stop_signals import Stopped
from tests.engine.test_work_folder_lock import holder
from tests.inference.test_sources import cut_video


class Model:
    """Finds one object in each image, or gives each pixel label 0."""

    device, has_copies, has_tags, is_tagger = 'cpu', False, False, False
    classes = ('thing',)

    def __init__(self, is_detector):
        self.is_detector = is_detector

    def run(self, source, options, speed):
        for frame in source.frames:
            try:
                image = frame.read()
            except UserError as error:
                speed.unreadable.append(str(error))
                continue
            height, width = image.shape[:2]
            speed.images += 1
            if self.is_detector:
                yield image, Detections(
                    frame.name, height, width, self.classes, np.array([[1, 2, 5, 6]], np.float32),
                    np.array([0.9], np.float32), np.array([0]),
                )  # fmt: skip
            else:
                yield image, Segmentation(
                    frame.name, height, width, self.classes, np.zeros((1, 3), np.uint8),
                    np.zeros((height, width), np.uint8),
                )  # fmt: skip
        speed.unreadable += source.closed


@pytest.fixture
def model(monkeypatch):
    model = Model(True)
    monkeypatch.setattr('attnpool_backbones.inference.loading.load', lambda *args: model)
    return model


@pytest.fixture
def here(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'run').mkdir()
    for name in ('config.py', 'epoch_1.pth'):
        (tmp_path / 'run' / name).touch()
    return tmp_path


def save_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    cv2.imwrite(str(path), noise)


def save_video(path: Path, rate: float = 10) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), rate, (32, 24))
    for value in range(4):
        writer.write(np.full((24, 32, 3), value * 40, np.uint8))
    writer.release()


def predict(*words) -> int:
    return main(['predict', 'run', *map(str, words), '--threads', '0'])


@pytest.mark.parametrize(
    'file, source, save',
    [
        ('video.mp4', 'video.mp4', 'pictures'),
        ('pictures/a.jpg', 'pictures', 'pictures'),
        ('pictures/a.jpg', 'pictures/a.jpg', 'pictures'),
        ('pictures/a.jpg', 'pictures/*.jpg', 'pictures'),
        ('label_maps/a.png', 'label_maps', 'maps'),
        ('pictures/a.jpg', 'link', 'pictures'),
    ],
)
def test_what_is_predicted_on_is_not_overwritten(here, model, file, source, save, capsys):
    model.is_detector = save != 'maps'
    (save_video if file == 'video.mp4' else save_image)(here / file)
    (here / 'link').symlink_to(here / 'pictures')
    content = (here / file).read_bytes()
    assert predict(source, '--out', '.', '--save', save) == 2
    assert (here / file).read_bytes() == content
    assert f'{file} is an input' in capsys.readouterr().err


@pytest.mark.parametrize('source', ['.', '**/*.jpg'])
def test_predictions_of_an_earlier_run_are_no_images(here, source, capsys):
    for name in ('a.jpg', 'own/pictures/b.jpg'):
        save_image(here / name)
    for told in ('', 'predictions of an earlier run, left out: 2'):
        assert predict(source) == 0
        assert told in capsys.readouterr().err
        lines = (here / 'predictions/predictions.jsonl').read_text().splitlines()
        assert [json.loads(line)['image'] for line in lines] == ['a.jpg', 'own/pictures/b.jpg']
    # who names them means them
    assert predict('predictions/pictures', '--out', 'again') == 0
    assert len(list((here / 'again').rglob('*.jpg'))) == 2


def test_a_folder_with_nothing_but_predictions_is_told(here, capsys):
    save_image(here / 'predictions/pictures/a.jpg')
    assert predict('.') == 2
    assert 'no images in it but predictions of an earlier run' in capsys.readouterr().err


def test_files_that_are_no_images_by_their_names_are_told(here, capsys):
    save_image(here / 'photos/a.jpg')
    for name in ('b.HEIC', 'c.heic', 'film.mp4', 'README'):
        (here / 'photos' / name).touch()
    assert predict('photos') == 0
    told = 'no images by their names, left out: 2 .heic, 1 without an ending, 1 .mp4'
    assert told in capsys.readouterr().err.splitlines()


def test_what_a_killed_run_left_is_told(here, capsys):
    save_image(here / 'a.jpg')
    writer = f'{_host()}-{2**22 - 1}-00000000'
    part = here / f'predictions/.predictions.jsonl.{writer}.attnpool-part'
    part.parent.mkdir()
    part.write_text('{}')
    assert predict('a.jpg') == 0
    told = f'removed, unfinished by a run that was killed: {part.relative_to(here)}'
    assert told in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize('out', ['-', 'predictions'])
def test_the_checkpoint_is_told(here, out, capsys):
    save_image(here / 'a.jpg')
    assert predict('a.jpg', '--out', out) == 0
    told = capsys.readouterr()
    assert f'checkpoint: {Path("run/epoch_1.pth")}' in told.err.splitlines()
    assert 'checkpoint' not in told.out


def test_paths_on_standard_input_stay_in_the_folder(here, monkeypatch):
    save_image(here / 'photos/a.jpg')
    save_image(here / 'photos/b.jpg')
    (here / 'run').rename(here / 'photos/run')
    monkeypatch.chdir(here / 'photos')
    stdin = io.TextIOWrapper(io.BytesIO(b'b.jpg\n../photos/a.jpg\n'))
    monkeypatch.setattr('sys.stdin', stdin)
    assert predict('-') == 0
    assert {path.name for path in Path('predictions/pictures').iterdir()} == {'a.jpg', 'b.jpg'}


def test_images_that_are_not_in_the_annotations_are_told(here, capsys):
    save_image(here / 'photos/1.jpg')
    save_image(here / 'photos/2.jpg')
    content = dict(images=[dict(id=7, file_name='1.jpg')], categories=[dict(id=1, name='thing')])
    (here / 'a.json').write_text(json.dumps(content))
    assert predict('photos', '--save', 'coco', '--annotations', 'a.json') == 1
    assert 'not in --annotations, no results of COCO: 2.jpg' in capsys.readouterr().err
    results = json.loads((here / 'predictions/coco_results.json').read_text())
    assert [result['image_id'] for result in results] == [7]


def test_pictures_that_cannot_be_written_are_told(here, capsys):
    save_image(here / 'photos/1.jpg')
    cv2.imwrite(str(here / 'photos/2.png'), np.zeros((1, 65536, 3), np.uint8))  # none of JPEG's
    save_image(here / 'photos/3.jpg')
    assert predict('photos') == 1
    told = capsys.readouterr().err
    assert 'not written: ' in told and '2.jpg: 65536x1 pixels cannot be written as .jpg' in told
    written = {path.name for path in (here / 'predictions/pictures').iterdir()}
    assert written == {'1.jpg', '3.jpg'}
    assert len((here / 'predictions/predictions.jsonl').read_text().splitlines()) == 3
    assert predict('photos/2.png', '--out', 'none', '--save', 'pictures') == 1
    assert '\nwritten: ' not in capsys.readouterr().err


@pytest.mark.parametrize('error', [KeyboardInterrupt, UserError])
def test_results_before_an_error_are_written(here, model, monkeypatch, error):
    for name in ('1.jpg', '2.jpg'):
        save_image(here / 'photos' / name)
    run = model.run

    def stops(*args):
        yield next(run(*args))
        raise error('one bad image')

    monkeypatch.setattr(model, 'run', stops)
    code = predict('photos', '--save', 'coco', 'json')
    assert code == {KeyboardInterrupt: 130, UserError: 2}[error]
    results = json.loads((here / 'predictions/coco_results.json').read_text())
    assert [result['image_id'] for result in results] == [1]
    assert len((here / 'predictions/predictions.jsonl').read_text().splitlines()) == 1


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP'])
@pytest.mark.parametrize('moment', ['predicting', 'writing'])
def test_results_before_a_signal_are_written(here, model, monkeypatch, name, moment, capfd):
    number = getattr(signal, name)
    save_video(here / 'video.mp4')
    run, close = model.run, Outputs.close

    def signals(*args):
        try:
            yield from islice(run(*args), 2)
            if moment == 'predicting':
                os.kill(os.getpid(), number)
        finally:
            # as timeout does, which tells the process and its group
            if moment == 'predicting':
                os.kill(os.getpid(), number)

    def signals_and_closes(outputs):
        os.kill(os.getpid(), number)
        return close(outputs)

    monkeypatch.setattr(model, 'run', signals)
    if moment == 'writing':
        monkeypatch.setattr(Outputs, 'close', signals_and_closes)
    with pytest.raises(Stopped) as stop:
        predict('video.mp4', '--save', 'pictures', 'json', 'coco')
    assert stop.value.code == 128 + number and name in capfd.readouterr().err
    assert len((here / 'predictions/predictions.jsonl').read_text().splitlines()) == 2
    assert len(json.loads((here / 'predictions/coco_results.json').read_text())) == 2
    capture = cv2.VideoCapture(str(here / 'predictions/video.mp4'))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert sorted(path.name for path in (here / 'predictions').iterdir()) == [
        'coco_results.json', 'predictions.jsonl', 'video.mp4',
    ]  # fmt: skip
    assert signal.getsignal(number) is signal.SIG_DFL


def test_two_runs_do_not_write_into_one_folder(here, capsys):
    save_image(here / 'a.jpg')
    assert predict('a.jpg') == 0
    assert 'replaced' not in capsys.readouterr().err
    lines = here / 'predictions/predictions.jsonl'
    content = lines.read_bytes()
    with holder(here / 'predictions', Path(__file__).parents[2]) as (process, _):
        assert predict('a.jpg') == 2
        told = capsys.readouterr().err
        assert f'is written by process {process.pid}' in told and 'another --out' in told
        assert 'training' not in told and lines.read_bytes() == content
        assert predict('a.jpg', '--out', '-') == 0
    capsys.readouterr()
    assert predict('a.jpg') == 0
    assert f'replaced, of an earlier run: {Path("predictions/predictions.jsonl")}' in (
        capsys.readouterr().err
    )


def test_a_video_that_breaks_off_is_told(here, capsys):
    path = cut_video(here / 'film.avi')
    count = len(list(open_source(path).frames))
    for limit in (count - 1, count):
        assert predict('film.avi', '--limit', limit) == 0
        assert 'unreadable' not in capsys.readouterr().err
    assert predict('film.avi') == 1
    assert f'only {count} of 60 frames can be read' in capsys.readouterr().err


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.cli import test_predict as here
from attnpool_backbones.inference import loading
loading.load = lambda *args: here.Model(True)
sys.exit(here.predict('photos', '--out', '-'))
"""


@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_who_stops_reading_the_lines_ends_it_quietly(here, unbuffered):
    for number in range(20):
        save_image(here / f'photos/{number}.jpg')
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, '-c', SCRIPT, str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {'PYTHONUNBUFFERED': unbuffered},
    )
    # nobody reads before the first line is written
    process.stdout.close()
    told = process.stderr.read()
    assert process.wait(60) == 141
    assert 'Traceback' not in told and 'BrokenPipe' not in told


@pytest.mark.parametrize(
    'model_name, words, code',
    [
        ('run', [], 1),
        ('run', ['--cfg-options', 'max_pixels=1536'], 0),
        ('run', ['--cfg-options', 'max_pixels=many'], 2),
        ('model.onnx', [], 0),
        ('model.onnx', ['--cfg-options', 'max_pixels=1535'], 1),
    ],
)
def test_max_pixels_of_the_config(here, model, model_name, words, code):
    save_image(here / 'a.jpg')  # of 1536 pixels
    pytest.importorskip('mmdet')
    (here / 'run/config.py').write_text(
        "max_pixels = 1535\nmodel = dict(type='FasterRCNN')\ndefault_scope = 'mmdet'\n"
    )
    assert main(['predict', model_name, 'a.jpg', '--threads', '0', *words]) == code


def test_of_the_settings_exported_files_take_max_pixels(tmp_path, monkeypatch):
    from attnpool_backbones.inference import loading

    save_image(tmp_path / 'a.jpg')  # of 1536 pixels
    make = Predictor(Module(), None, ['a'], None, True, 'cpu')
    monkeypatch.setattr(loading, 'load_exported', lambda *args: make)
    predictor = loading.load('model.onnx', cfg_options=dict(max_pixels=1535))
    assert list(predictor(tmp_path / 'a.jpg')) == []
    with pytest.raises(UserError, match='of --cfg-options only max_pixels'):
        loading.load('model.onnx', cfg_options=dict(max_pixels=1535, seed=1))
