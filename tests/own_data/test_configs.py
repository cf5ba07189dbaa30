"""The config that is written for a folder is short, whole, and of the model that was asked for."""

import argparse
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from attnpool_backbones.cli import main, train
from attnpool_backbones.command_line import UserError
from attnpool_backbones.engine.work_folder_lock import WorkFolderInUse
from attnpool_backbones.launching.config_models import build_config_model
from attnpool_backbones.own_data import preparing
from attnpool_backbones.own_data.bases import HEADS, choose_bases
from attnpool_backbones.own_data.model_costs import CLASSES, count_model
from attnpool_backbones.own_data.preparing import prepare
from attnpool_backbones.own_data.request import Request
from tests.own_data import scenes as written

FAMILIES = ['caformer-s18', 'patchconvnet-s60', 'sge-resnet50', 'coatnet-0-rw', 'deepvit-s']


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('backbone', FAMILIES)
def test_every_head_is_built_on_every_family(backbone, head):
    size = count_model(choose_bases(backbone, head), 256)
    assert 10e6 < size.parameters < 110e6 and size.macs > 5e9


def classes_of(model) -> set[int]:
    return {m.num_classes for m in model.modules() if hasattr(m, 'num_classes')}


@pytest.mark.parametrize(
    'backbone, head',
    [
        ('patchconvnet-nano', 'mask-rcnn'),
        ('caformer-nano', 'faster-rcnn'),
        ('resnet18', 'retinanet'),
        ('resnet18', 'cascade-mask-rcnn'),
        ('deepvit-nano', 'upernet'),
        ('resnet18', 'semantic-fpn'),
    ],
)
def test_config_is_of_the_data(digits, tmp_path, backbone, head, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared = prepare(Request(str(digits), backbone, head, size=96), tell=lambda line: None)
    text = prepared.config.read_text()
    assert prepared.config == Path(f'work_dirs/digit_scenes_{head}_{backbone}.py')
    assert len(text.splitlines()) <= 75
    assert max(map(len, text.splitlines())) <= 100 + len(str(tmp_path))
    cfg = prepared.cfg
    model = build_config_model(cfg, 'meta')
    expected = 11 if HEADS[head].segments else 10
    # RPN knows one class, the object
    assert classes_of(model) - {1} == {expected}
    assert CLASSES not in classes_of(model)
    assert len(cfg.train_dataloader.dataset.metainfo.classes) == expected
    assert cfg.train_cfg.max_epochs == 100
    assert 'data' not in cfg and 'under' not in cfg


@pytest.mark.parametrize(
    'backbone, named',
    [
        ('caformer-s18', '--weights download fetches https://'),
        ('gc-resnet50', 'put gc_resnet50.pth.tar into checkpoints/'),
    ],
)
def test_weights_that_are_not_at_hand_are_named(backbone, named, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    request = Request(str(digits), backbone, 'faster-rcnn', size=96)
    assert named in ' '.join(prepare(request, tell=lambda line: None).notes)


def test_a_download_tells_whose_terms_hold(digits, tmp_path, monkeypatch):
    weights = tmp_path / 'caformer_s18.pth'
    weights.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(preparing, 'download_weights', lambda bases: str(weights))
    request = Request(str(digits), 'caformer-s18', 'faster-rcnn', size=96, weights='download')
    (told,) = [note for note in prepare(request, tell=lambda line: None).notes if 'sail/dl' in note]
    assert 'licence' in told


@pytest.mark.parametrize(
    'backbone, head, divisor',
    [
        ('patchconvnet-s60', 'upernet', 16),
        ('deepvit-s', 'semantic-fpn', 16),
        ('patchconvnet-nano', 'upernet', 8),
        ('caformer-nano', 'upernet', None),
    ],
)
def test_images_are_tested_as_whole_patches(digits, tmp_path, backbone, head, divisor, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared = prepare(Request(str(digits), backbone, head, size=90), tell=lambda line: None)
    pipeline = prepared.cfg.test_dataloader.dataset.pipeline
    kinds = [step.type for step in pipeline]
    if divisor is None:
        assert 'ResizeToMultiple' not in kinds
    else:
        at = kinds.index('ResizeToMultiple')
        # the ground truth keeps its size
        assert kinds.index('Resize') < at < kinds.index('LoadAnnotations')
        assert pipeline[at].size_divisor == divisor
    assert prepared.cfg.val_dataloader.dataset.pipeline == pipeline


def test_nothing_is_copied_and_originals_are_used(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = Request(str(digits), 'caformer-nano', 'mask-rcnn', work_dir='run')
    prepared = prepare(request, tell=lambda line: None)
    assert sorted(p.name for p in tmp_path.rglob('*')) == ['run.py']
    assert prepared.cfg.val_evaluator.ann_file == str(digits / 'annotations/instances_val.json')


def test_command_that_is_told_can_be_copied(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ['config', str(digits), '--backbone', 'caformer-nano', '--head', 'faster-rcnn']
    main([*words, '--out', 'my config #1.py'])
    told = capsys.readouterr().out.split('train it with: ')[1]
    assert shlex.split(told) == [
        'attnpool', 'train', 'my config #1.py', '--work-dir', 'work_dirs/my config #1'
    ]  # fmt: skip


def test_crowds_choose_no_anchors(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written.voc(written.load_scenes(digits), tmp_path / 'data', False)
    request = Request('data', 'caformer-nano', 'faster-rcnn')
    before = prepare(request, tell=lambda line: None).plan.anchors
    for file in (tmp_path / 'data/Annotations').iterdir():
        crowds = ''.join(
            f'<object><name>one</name><difficult>{{}}</difficult><bndbox><xmin>1</xmin>'
            f'<ymin>{top}</ymin><xmax>2</xmax><ymax>{top + 1}</ymax></bndbox></object>'
            for top in range(1, 60, 4)
        )
        file.write_text(file.read_text().replace('</annotation>', crowds + '</annotation>'))
    found = []
    for flag in ('1', '0'):
        for file in (tmp_path / 'data/Annotations').iterdir():
            file.write_text(
                file.read_text().replace('{}', flag).replace('>1</diff', f'>{flag}</diff')
            )
        found.append(prepare(request, tell=lambda line: None).plan.anchors)
    assert found[0] == before != found[1]


def test_converted_labels_lie_beside_the_run(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written.cvat(written.load_scenes(digits), tmp_path / 'data', True)
    request = Request('data', 'caformer-nano', 'mask-rcnn', work_dir='run')
    prepared = prepare(request, tell=lambda line: None)
    files = sorted(str(p.relative_to(tmp_path)) for p in Path(tmp_path, 'run').rglob('*.json'))
    assert files == ['run/annotations/train.json', 'run/annotations/val.json']
    assert prepared.cfg.train_dataloader.dataset.ann_file == str(tmp_path / files[0])


def test_images_of_several_endings_are_all_used(digits, tmp_path, monkeypatch):
    from mmengine.registry import DATASETS, DefaultScope
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    written.masks(digits, tmp_path / 'data', 'ids')
    png = tmp_path / 'data/training/images/000001.png'
    Image.open(png).save(png.with_suffix('.jpg'))
    png.unlink()
    prepared = prepare(Request('data', 'caformer-nano', 'upernet', size=96), tell=lambda line: None)
    with DefaultScope.overwrite_default_scope('mmseg'):
        data = DATASETS.build(prepared.cfg.train_dataloader.dataset)
    assert len(data) == 8
    assert {Path(data.get_data_info(i)['img_path']).suffix for i in range(8)} == {'.png', '.jpg'}
    assert data[0]['inputs'].shape[0] == 3


def test_binary_masks_of_255_are_two_classes(digits, tmp_path, monkeypatch):
    import numpy as np
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    written.masks(digits, tmp_path / 'data', 'beside')
    (tmp_path / 'data/classes.txt').unlink()
    for file in (tmp_path / 'data').rglob('*_mask.png'):
        labels = np.asarray(Image.open(file))
        Image.fromarray(np.where(labels > 0, 255, 0).astype(np.uint8)).save(file)
    request = Request('data', 'caformer-nano', 'upernet', size=96, work_dir='run')
    prepared = prepare(request, tell=lambda line: None)
    assert prepared.cfg.train_dataloader.dataset.metainfo.classes == ('background', 'foreground')
    maps = sorted((tmp_path / 'run/label_maps').rglob('*.png'))
    assert len(maps) == 13
    assert set(np.unique(np.asarray(Image.open(maps[0])))) == {0, 1}


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob('*') if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def prepared_run(digits: Path, form: str, head: str) -> Request:
    """Prepares a run in ``run``, with ``run.py``, whose labels are converted."""
    if form == 'masks':
        written.masks(digits, Path('data'), 'beside')
        for split in written.SPLITS.values():  # so that splits are made here
            shutil.move(f'data/{split}', f'data/{split[0]}')
    else:
        content = written.load_scenes(digits)
        written.WRITERS[form](content, Path('data'), True)
        if form == 'yolo':
            shutil.copytree('data/images/val', 'data/images/train', dirs_exist_ok=True)
            shutil.rmtree('data/images/val')
            shutil.move('data/labels/val', 'data/labels/train/more')
    request = Request('data', 'caformer-nano', head, size=96, work_dir='run')
    prepare(request, tell=lambda line: None)
    return request


@pytest.mark.parametrize(
    'form, head, changes',
    [
        ('yolo', 'mask-rcnn', dict(split_seed=1)),
        ('yolo', 'upernet', dict(split_seed=1)),
        ('masks', 'upernet', dict(split_seed=1)),
        ('cvat', 'upernet', dict(classes=['two', 'one'])),
        ('cvat', 'mask-rcnn', dict(epochs=3)),
    ],
)
def test_run_with_checkpoints_keeps_its_labels_and_config(
    digits, tmp_path, form, head, changes, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    request = prepared_run(digits, form, head)
    Path('run').mkdir(exist_ok=True)
    Path('run/epoch_1.pth').touch()
    before = contents(tmp_path)
    with pytest.raises(
        UserError, match=r'run has checkpoints .* another (run|/.*/run).*--work-dir'
    ):
        prepare(replace(request, **changes), tell=lambda line: None)
    assert contents(tmp_path) == before
    prepare(request, tell=lambda line: None)
    assert contents(tmp_path) == before
    Path('run/epoch_1.pth').unlink()
    prepare(replace(request, **changes), tell=lambda line: None)
    assert contents(tmp_path) != before


def test_config_that_its_owner_changed_is_kept(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = prepared_run(digits, 'cvat', 'mask-rcnn')
    Path('run/epoch_1.pth').touch()
    changed = Path('run.py').read_text() + '# mine\n'
    Path('run.py').write_text(changed)
    with pytest.raises(UserError, match=r'run has checkpoints .* another run\.py'):
        prepare(request, tell=lambda line: None)
    assert Path('run.py').read_text() == changed


HOLD = """
from attnpool_backbones.engine.work_folder_lock import claimed
with claimed('run'):
    print('held', flush=True)
    input()
"""


def test_labels_of_a_training_that_runs_are_not_changed(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = prepared_run(digits, 'cvat', 'upernet')
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, '-c', HOLD], **pipes) as holder:
        assert holder.stdout.readline() == 'held\n'
        before = contents(tmp_path)
        with pytest.raises(WorkFolderInUse):
            prepare(replace(request, classes=['two', 'one']), tell=lambda line: None)
        assert contents(tmp_path) == before
        holder.communicate('\n')


def test_config_elsewhere_leaves_the_run_of_that_name(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written.cvat(written.load_scenes(digits), tmp_path / 'photos', True)
    command = ['config', 'photos', '--backbone', 'caformer-nano', '--head', 'mask-rcnn']
    assert main(command) in (0, None)
    before = contents(tmp_path / 'work_dirs')
    assert main([*command, '--classes', 'two', 'one', '--out', 'my own.py']) in (0, None)
    assert before.items() <= contents(tmp_path / 'work_dirs').items()
    assert Path('work_dirs/my own/annotations/train.json').is_file()
    told = "attnpool train 'my own.py' --work-dir 'work_dirs/my own'\n"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize('words', [['config'], ['browse', '--count', '1', '--out', 'seen']])
def test_commands_show_how_many_images_are_checked(words, digits, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    written.voc(written.load_scenes(digits), tmp_path / 'photos', False)
    total = len(list((tmp_path / 'photos').rglob('*.png')))
    name, *rest = words
    assert main([name, 'photos', '--backbone', 'caformer-nano', *rest]) in (0, None)
    assert f'{total}/{total}' in capfd.readouterr().err


def test_run_of_another_folder_of_the_same_name_does_not_go_on(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for parent in ('a', 'b'):
        written.cvat(written.load_scenes(digits), tmp_path / parent / 'photos', True)
    model = ['--backbone', 'caformer-nano', '--head', 'mask-rcnn']
    assert main(['config', 'b/photos', *model]) in (0, None)
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    words = f'trains on {tmp_path}/b/photos/, not on {tmp_path}/a/photos'
    with pytest.raises(UserError, match=words):
        train.prepare_folder(parser.parse_args(['a/photos', *model, '--resume']))
    args = parser.parse_args(['b/photos', *model, '--resume'])
    train.prepare_folder(args)
    assert args.config == 'work_dirs/photos_mask-rcnn_caformer-nano.py'
