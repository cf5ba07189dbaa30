import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from attnpool_backbones.analysis.subjects import (
    arch_of,
    images_of,
    load_subject,
    pixel_statistics,
    views_of,
)
from attnpool_backbones.backbones import AttnResNet, CoAtNet, DeepViT, MetaFormer, PatchConvNet
from attnpool_backbones.checkpoints import CheckpointMismatch
from attnpool_backbones.cli import main
from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from tests.analysis.subjects import as_subject
from tests.golden import load_golden, official_state_dict

BACKBONES = sorted((config_root() / '_base_' / 'backbones').glob('*.py'))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / 'image.png'
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
    return file


@pytest.mark.parametrize(
    'build, arch',
    [
        (lambda: PatchConvNet(arch='nano', pooling=True), 'nano'),
        (lambda: PatchConvNet(arch='nano'), 'nano'),
        (lambda: CoAtNet(arch='nano'), 'nano'),
        (lambda: DeepViT(arch='nano'), 'nano'),
        (lambda: MetaFormer(arch='caformer_nano'), 'caformer_nano'),
        (lambda: AttnResNet(arch='sge_resnet_nano'), 'sge_resnet_nano'),
        (lambda: AttnResNet(arch='resnet_nano'), 'resnet_nano'),
    ],
)
def test_names_and_shapes_tell_the_variant(build, arch):
    model = build()
    assert arch in arch_of(type(model).__name__, model.state_dict())


def test_variants_of_equal_weights_are_all_told():
    state = MetaFormer(arch='poolformer_s12').state_dict()
    archs = arch_of('MetaFormer', state)
    assert {'poolformer_s12', 'poolformer_s12_pool5', 'poolformer_s12_relu'} <= set(archs)
    assert not {'poolformer_s24', 'poolformer_s12_nomlp'} & set(archs)


def test_weights_of_no_variant():
    state = PatchConvNet(arch=dict(width=64, depth=4)).state_dict()
    with pytest.raises(CheckpointMismatch, match='none of its variants: .*s60'):
        arch_of('PatchConvNet', state)


def test_an_official_file_alone(tmp_path, image):
    fixture = load_golden('deepvit_S_64')
    torch.save(official_state_dict(fixture), tmp_path / 'official.pth')
    subject = load_subject(str(tmp_path / 'official.pth'))
    assert subject.name == 'DeepViT:s' and not subject.model.training
    assert set(subject.head) == {'head.weight', 'head.bias'}
    (view,) = views_of(subject, str(image))
    assert view.image.shape == (224, 336, 3) and view.padded == (224, 336)
    assert view.scale == (224 / 60, 336 / 90)


IMAGENET, HALVES = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    'name, statistics',
    [
        ('PatchConvNet:nano', IMAGENET),
        ('DeepViT:nano', IMAGENET),
        ('DeepViT:s', HALVES),
        ('DeepViT:vit_12b', HALVES),
        ('CoAtNet:nano', IMAGENET),
        ('CoAtNet:nano_rw', HALVES),
        ('CoAtNet:bn_0_rw', IMAGENET),
    ],
)
def test_images_are_normalised_as_in_pretraining(name, statistics, image):
    subject = load_subject(name, size=(60, 90), random_weights=True)
    (view,) = views_of(subject, str(image))
    rgb = cv2.imread(str(image))[..., ::-1]
    assert np.array_equal(view.image, rgb)
    mean, std = map(np.array, statistics)
    expected = (rgb / 255 - mean) / std
    np.testing.assert_allclose(view.inputs[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize('file', BACKBONES, ids=lambda file: file.stem)
def test_statistics_are_those_of_the_configs(file):
    model = Config.fromfile(file, lazy_import=False).under.upernet
    family, preset = model.backbone.type.rpartition('.')[2], model.get('data_preprocessor')
    found = pixel_statistics(family, model.backbone.get('arch', ''))
    base = BACKBONES[0].parents[1] / 'models' / 'classifier.py'
    imagenet = Config.fromfile(base, lazy_import=False).model.data_preprocessor
    expected = preset or imagenet
    assert [list(values) for values in found] == [list(expected.mean), list(expected.std)]


@pytest.mark.parametrize(
    'source, options, message',
    [
        ('nowhere', {}, 'nowhere: not found. A model is the folder of a run, a config'),
        ('DeepViT:16b', {}, 'name its --checkpoint, or say --random-weights'),
        ('DeepVit:16b', dict(random_weights=True), 'no backbone of this name; there are AttnRes'),
        ('DeepViT:15b', dict(random_weights=True), '15b'),
    ],
)
def test_wrong_names_get_one_line(source, options, message):
    with pytest.raises(UserError, match=message):
        load_subject(source, **options)


def test_images_that_are_not_there(tmp_path):
    subject = load_subject('PatchConvNet:nano', random_weights=True)
    with pytest.raises(UserError, match='--images val: only a run or a config has data sets'):
        list(views_of(subject, 'val'))
    with pytest.raises(UserError, match='not found'):
        list(views_of(subject, str(tmp_path / 'no.png')))
    (tmp_path / 'text.png').write_text('no image')
    with pytest.raises(UserError, match='no image in it can be read'):
        list(views_of(subject, str(tmp_path / 'text.png')))


def test_folders_that_cannot_be_read_are_left_out(image, close_folders, capsys):
    (image.parent / 'lost+found').mkdir()
    close_folders('lost+found')
    subject = load_subject('PatchConvNet:nano', random_weights=True)
    assert [view.name for view in views_of(subject, str(image.parent))] == ['image.png']
    told = capsys.readouterr().err
    assert 'left out: lost+found: ' in told and 'cannot be read: Permission denied' in told


COMMANDS = {
    'pooling': ['pooling', 'PatchConvNet:nano'],
    'query': ['query', 'CoAtNet:nano', '--at', '80,20', '--block', '1'],
    'one head': ['query', 'DeepViT:nano', '--head', '1'],
    'gates': ['gates', 'AttnResNet:sge_resnet_nano', '--beside', 'AttnResNet:resnet_nano'],
    'collapse': ['collapse', 'DeepViT:nano'],
    'activations': ['activations', 'AttnResNet:sge_resnet_nano'],
    'collapse of a hierarchy': ['collapse', 'MetaFormer:caformer_nano'],
}


@pytest.mark.parametrize('name', COMMANDS)
def test_command(name, image, tmp_path, capsys):
    words = [*COMMANDS[name], '--random-weights', '--images', str(image)]
    assert main(['figure', *words, '--size', '96', '--out', str(tmp_path / 'out')]) == 0
    # mmengine may have logged before
    *files, reading = capsys.readouterr().out.splitlines()[-3:]
    kind = words[0]
    assert [Path(file).name for file in files] == [f'{kind}.png', f'{kind}.json']
    numbers = json.loads(Path(files[1]).read_text())
    assert numbers['reading'] == reading and numbers['model'] == words[1]
    picture = cv2.imread(files[0])
    assert picture.std() > 5  # something is drawn


def test_command_says_what_is_wrong(image, tmp_path, capsys):
    words = ['figure', 'pooling', 'DeepViT:nano', '--random-weights', '--images', str(image)]
    assert main([*words, '--out', str(tmp_path / 'out')]) == 2
    assert 'error: DeepViT:nano has no attention pooling' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('limit', 'classes'), [(1, 'a'), (2, 'ac'), (4, 'abcd'), (6, 'aabccd'), (None, 'aaabbbcccddd')]
)
@pytest.mark.parametrize('source', ['folder', 'val'])
def test_a_few_images_are_of_all_classes(source, limit, classes, tmp_path):
    for name in 'abcd':
        (tmp_path / name).mkdir()
        for index in range(3):
            cv2.imwrite(
                str(tmp_path / name / f'{name}{index}.png'), np.zeros((32, 32, 3), np.uint8)
            )
    if source == 'folder':
        subject, images = as_subject(PatchConvNet(arch='nano')), str(tmp_path)
    else:
        config = config_root() / 'classification' / 'resnet-nano-attnpool_digit-crops.py'
        data = dict(type='attnpool_backbones.ClassFolders', data_root=str(tmp_path),
                    data_prefix=dict(img='.'), pipeline=[])  # fmt: skip
        cfg = Config.fromfile(config)
        cfg.val_dataloader.dataset = cfg.test_dataloader.dataset = data
        cfg.dump(tmp_path / 'config.py')
        subject, images = load_subject(str(tmp_path / 'config.py'), random_weights=True), 'val'
    names = [Path(name).name for name, _ in images_of(subject, images, limit)]
    assert ''.join(name[0] for name in names) == classes and len(set(names)) == len(names)


def test_other_images_take_the_place_of_those_that_cannot_be_read(tmp_path):
    for index in range(6):
        cv2.imwrite(str(tmp_path / f'{index}.png'), np.zeros((32, 32, 3), np.uint8))
    (tmp_path / '2.png').write_text('no image')
    found = images_of(as_subject(PatchConvNet(arch='nano')), str(tmp_path), 3)
    assert [name for name, _ in found] == ['0.png', '4.png', '1.png']


def test_a_run_and_its_data_set(tmp_path):
    """Its own images come as its pipeline makes them."""
    pytest.importorskip('mmdet')
    from attnpool_backbones.datasets.digit_scenes import generate
    from tests.inference.conftest import save_run

    generate(tmp_path / 'scenes', train=2, val=2, size=(96, 64))
    folder = save_run(tmp_path / 'scenes', tmp_path / 'run', 'mask-rcnn')
    subject = load_subject(str(folder))
    views = list(views_of(subject, 'val', limit=3))
    assert len(views) == 2 and len(subject.classes) == 10
    for view in views:
        assert view.padded[0] % 32 == 0 and view.padded[1] % 32 == 0
        height, width = view.image.shape[:2]
        assert (height, width) == (round(64 * view.scale[0]), round(96 * view.scale[1]))
        inputs = view.inputs[0, :, :height, :width].permute(1, 2, 0).numpy()
        # The same picture: normalised, it follows the pixels that are drawn.
        for channel in range(3):
            pixels = view.image[..., channel].flatten()
            assert np.corrcoef(pixels, inputs[..., channel].flatten())[0, 1] > 0.98

    with pytest.raises(UserError, match='--size: the config of a detector or segmentor tells'):
        load_subject(str(folder), size=64)

    # an image that is too large for the config is not decoded
    with (folder / 'config.py').open('a') as config:
        config.write(f'max_pixels = {96 * 64 - 1}\n')
    with pytest.raises(UserError, match='has 96x64 pixels, .*max_pixels=6144 in the config'):
        list(views_of(load_subject(str(folder)), 'val'))


@pytest.mark.parametrize('per_class', [False, True])
def test_the_run_of_a_classifier(per_class, image, tmp_path):
    from attnpool_backbones.launching.config import load_config
    from attnpool_backbones.launching.config_models import build_config_model

    config = config_root() / 'classification' / 'resnet-nano-attnpool_digit-crops.py'
    cfg = load_config(str(config), {'model.head.per_class': per_class})
    model = build_config_model(cfg).eval()
    folder = tmp_path / 'run'
    folder.mkdir()
    cfg.dump(folder / 'config.py')
    meta = dict(dataset_meta=dict(classes=tuple('abcdefghij')))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'epoch_6.pth')
    subject = load_subject(str(folder))
    assert subject.classes == tuple('abcdefghij')
    (view,) = views_of(subject, str(image))
    assert min(view.padded) == 48  # the side of the crops that it was trained on
    larger = load_subject(str(folder), size=(64, 96))
    (view,) = views_of(larger, str(image))
    assert view.padded == (64, 96) == view.image.shape[:2]
    mean, std = (cfg.model.data_preprocessor[key] for key in ('mean', 'std'))
    expected = (view.image - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(view.inputs[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert main(['figure', 'pooling', str(folder), '--images', str(image), '--size', '64x96',
                 '--out', str(tmp_path / 'out')]) == 0  # fmt: skip
    numbers = json.loads((tmp_path / 'out' / 'pooling.json').read_text())
    (entry,) = numbers['images']
    with torch.no_grad():
        _, maps = model.head(model.backbone(view.inputs), return_maps=True)
    if per_class:
        entry = entry['classes'][0]
        maps = maps[:, entry['number']]
    else:
        maps = maps[:, 0]
    np.testing.assert_allclose(entry['map'], maps[0].numpy(), rtol=1e-4, atol=1e-7)
