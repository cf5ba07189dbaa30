"""``attnpool test FILE RUN``: an exported file on the data of its run."""

import pytest
from mmengine.config import Config

pytest.importorskip('mmseg')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

from attnpool_backbones.cli import main
from attnpool_backbones.inference.exported_model import ExportedFile, ExportedModel

TAGS = 'attnpool_backbones.ImageTagMetric'
MAPS = dict(type='attnpool_backbones.LocalisationMetric')


@pytest.fixture(scope='module')
def file(tagged_segmentor, tmp_path_factory):
    """A file of a segmentor with an image-level head."""
    path = tmp_path_factory.mktemp('exported') / 'model.onnx'
    assert main(['export', str(tagged_segmentor), '--size', '64', '96', '--out', str(path)]) == 0
    return path


def test_one_process_tests_a_file(file, tagged_segmentor, capfd):
    assert main(['test', str(file), str(tagged_segmentor), '--launcher', 'pytorch']) == 2
    assert '--launcher is for models, not for exported files' in capfd.readouterr().err


@pytest.mark.parametrize('form', ['list', 'evaluator', 'alone'])
def test_metrics_of_tags_are_left_out(form, file, tagged_segmentor, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(tagged_segmentor / 'config.py')
    cfg.test_evaluator = {
        'list': [cfg.test_evaluator, dict(type=TAGS), MAPS],
        'evaluator': dict(type='Evaluator', metrics=[dict(type=TAGS), cfg.test_evaluator]),
        'alone': dict(type=TAGS),
    }[form]
    cfg.log_level = 'WARNING'  # as the quickstart's; metrics are told nevertheless
    cfg.dump('config.py')
    code = main(['test', str(file), 'config.py'])
    told = capfd.readouterr()
    if form == 'alone':
        assert code == 2
        assert 'measures nothing else (ImageTagMetric): test the model' in told.err
        return
    assert code == 0
    names = {'list': 'ImageTagMetric, LocalisationMetric', 'evaluator': 'ImageTagMetric'}[form]
    assert f'not measured, as {file} tells no tags of images: {names}' in told.out
    assert 'mIoU: ' in told.out and 'tags/mAP' not in told.out + told.err


@pytest.fixture(scope='module')
def file_of_any_size(segmentor, tmp_path_factory):
    path = tmp_path_factory.mktemp('exported') / 'model.onnx'
    assert main(['export', str(segmentor), '--out', str(path)]) == 0
    return path


def test_images_are_resized_as_the_file_says(file_of_any_size, segmentor, tmp_path, monkeypatch):
    seen = []

    def noted(model, data):
        seen.extend(tuple(image.shape[1:]) for image in data['inputs'])
        return ExportedModel.test_step(model, data)

    monkeypatch.setattr(ExportedFile, 'test_step', noted)
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(segmentor / 'config.py')
    (step,) = (s for s in cfg.test_dataloader.dataset.pipeline if s.type == 'Resize')
    step.scale = (48, 48)
    cfg.dump('config.py')
    assert main(['test', str(file_of_any_size), 'config.py']) == 0
    assert set(seen) == {(64, 96)} and len(seen) == 4


@pytest.mark.parametrize('lacking', [0, 1])
def test_large_images_are_left_out(lacking, file, tagged_segmentor, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    limit = 96 * 64 - lacking
    options = ['--cfg-options', f'max_pixels={limit}']
    code = main(['test', str(file), str(tagged_segmentor), *options])
    told = capfd.readouterr().out
    words = f'000001.png has 96x64 pixels, more than the {limit} that are loaded'
    expected = (2, False, True) if lacking else (0, True, False)  # all of them are too large
    assert (code, 'mIoU: ' in told, words in told) == expected
