"""Folders as their owners and their tools leave them: lists, names, links, files beside labels."""

import base64
import errno
import json
import math
import os
import re
import shutil
import sys
import unicodedata
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image, PngImagePlugin

from attnpool_backbones.cli import main
from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.digit_scenes import CLASSES
from attnpool_backbones.own_data.folder import displayed_size
from attnpool_backbones.own_data.masks_of_objects import decode
from attnpool_backbones.own_data.reading import read_labels
from attnpool_backbones.own_data.recognition import FORMATS, open_folder, recognise
from attnpool_backbones.own_data.request import Request
from tests.own_data import scenes as written
from tests.own_data.test_recognition import labels_of


def test_own_outputs_and_linked_folders(digits, tmp_path):
    root = tmp_path / 'photos'
    written.yolo(written.load_scenes(digits), root, False)
    before = labels_of(root)
    (root / 'images').rename(tmp_path / 'elsewhere')
    (root / 'images').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere/back').symlink_to(root)  # a loop
    image = next((tmp_path / 'elsewhere').rglob('*.png'))
    for file in ('work_dirs/run/annotations/train.json', 'seen/index.html',
                 'predictions/predictions.jsonl', 'report/index.html'):  # fmt: skip
        (root / file).parent.mkdir(parents=True)
        (root / file).write_text('{"images": [], "annotations": [], "categories": []}')
    for file in ('report/classes.csv', 'report/report.json'):
        (root / file).write_text('{}')
    for file in ('seen/samples/0.png', 'predictions/pictures/0.png', 'report/images/0.png'):
        (root / file).parent.mkdir()
        shutil.copy(image, root / file)
    assert recognise(open_folder(str(root))).format == 'yolo'
    assert [image.file for image in labels_of(root).images] == [i.file for i in before.images]


def linked(root: Path, real: str, link: str) -> None:
    """Moves what lies at the link to a real place, relative to the link's folder."""
    place = root / link
    place.rename(place.parent / real)
    place.symlink_to(real)


@pytest.mark.parametrize('real', ['raw', 'a_raw', '../outside'])
@pytest.mark.parametrize('link', ['images', 'masks'])
def test_links_tell_images_and_masks(tmp_path, real, link):
    root = tmp_path / 'data'
    for folder in ('images', 'masks'):
        (root / folder).mkdir(parents=True)
        for name in 'abcd':
            Image.new('L', (8, 8)).save(root / folder / f'{name}.png')
    linked(root, real, link)
    pairs = FORMATS['masks'].find(open_folder(str(root)))
    assert pairs == [(f'images/{name}.png', f'masks/{name}.png') for name in 'abcd']


@pytest.mark.parametrize('real', ['../part_a', 'part_a', '../../a/part'])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_links_tell_splits(digits, tmp_path, real, split):
    root = tmp_path / 'x/data'
    (tmp_path / 'x/a').mkdir(parents=True)
    written.yolo(written.load_scenes(digits), root, False)
    (root / 'data.yaml').unlink()
    (root / 'classes.txt').write_text('\n'.join(CLASSES))
    before = by_file(root)
    linked(root, real, f'images/{split}')
    assert by_file(root) == before


def test_a_link_to_a_folder_that_says_its_split_is_no_other_split(digits, tmp_path):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    before = by_file(tmp_path)
    (tmp_path / 'images/test').symlink_to('val')
    (tmp_path / 'images/all').symlink_to('.')
    (tmp_path / 'data.yaml').unlink()
    (tmp_path / 'classes.txt').write_text('\n'.join(CLASSES))
    assert by_file(tmp_path) == before


def test_labels_name_photos_by_the_real_path_too(digits, tmp_path):
    """Both parts number their photos from 1."""
    scenes = written.load_scenes(digits)
    chosen = [next(scene for scene in scenes if scene.split == split) for split in ('train', 'val')]
    (tmp_path / 'images').mkdir()
    images, annotations = [], []
    for number, (scene, part) in enumerate(zip(chosen, ('part_a', 'part_b'), strict=True), 1):
        written.place(scene, tmp_path / part / '1.png')
        (tmp_path / 'images' / scene.split).symlink_to(f'../{part}')
        images.append(dict(id=number, file_name=f'{part}/1.png', width=96, height=64))
        annotations.append(dict(id=number, image_id=number, category_id=1, bbox=[1, 1, 9, 9],
                                area=81, iscrowd=0))  # fmt: skip
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='a')])
    (tmp_path / 'labels.json').write_text(json.dumps(content))
    labels = labels_of(tmp_path)
    assert [image.file for image in labels.images] == ['images/train/1.png', 'images/val/1.png']


def enlarged(file: Path, side: int) -> None:
    """Lets the header of a PNG say other sides."""
    content = bytearray(file.read_bytes())
    content[16:24] = side.to_bytes(4, 'big') * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, 'big')
    file.write_bytes(content)


def test_image_above_the_limit_is_told(digits, tmp_path):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    wide = next((tmp_path / 'images').rglob('*.png'))
    enlarged(wide, 20_000)
    (problem,) = labels_of(tmp_path).problems
    assert problem.kind == 'unreadable image' and wide.name in problem.item
    assert '20000x20000 pixels, more than the 268435456' in problem.detail


@pytest.mark.parametrize('form', ['yolo', 'voc', 'labelme', 'cvat', 'coco', 'masks'])
def test_limit_of_pixels_is_that_of_the_config(digits, tmp_path, form, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / 'data'
    if form == 'masks':
        written.masks(digits, root, 'colours')
    else:
        written.WRITERS[form](written.load_scenes(digits), root, False)
    for limit, code in ((96 * 64 - 1, 1), (96 * 64, 0)):
        told = main(['verify', str(root), '--workers', '1', '--cfg-options', f'max_pixels={limit}'])
        assert told == code, capsys.readouterr().out
        assert (f'more than the {limit} that are loaded' in capsys.readouterr().out) == bool(code)


@pytest.mark.parametrize('limit, is_read', [(2**28, False), (2**29, True)])
def test_limit_of_pixels_may_be_above_the_usual_one(digits, tmp_path, limit, is_read):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    enlarged(tmp_path / 'images/train/train_000001.png', 17_000)
    folder = open_folder(str(tmp_path), dict(max_pixels=limit))
    labels, _ = read_labels(Request(str(tmp_path), '', ''), folder, False)
    assert [p.kind for p in labels.problems] == ([] if is_read else ['unreadable image'])
    assert (17_000 in {image.width for image in labels.images}) == is_read


@pytest.mark.parametrize('limit', ['many', '-1', '1.5'])
def test_limit_of_pixels_that_is_none(digits, tmp_path, limit, capsys):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    assert main(['verify', str(tmp_path), '--cfg-options', f'max_pixels={limit}']) == 2
    assert 'max_pixels has to be a whole number from 1 on' in capsys.readouterr().err


def test_images_that_are_loaded_have_a_size_whatever_pillow_would_refuse(digits, tmp_path):
    wide = tmp_path / 'wide.png'
    shutil.copy(next(digits.rglob('*.png')), wide)
    enlarged(wide, 2**14)
    assert displayed_size(wide) == (2**14, 2**14)


def describe(root: Path, **changes) -> None:
    file = root / 'data.yaml'
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))


def by_file(root: Path) -> dict:
    return {image.file: (image.split, image.instances) for image in labels_of(root).images}


def moved(root: Path) -> None:
    describe(root, path='', train='/home/u/ds/images/train', val='C:\\ds\\images\\val')


def quoted(root: Path) -> None:
    describe(root, names={str(n): name for n, name in enumerate([*CLASSES, 'ten'])})


def posed(root: Path) -> None:
    describe(root, kpt_shape=[6, 2])
    for file in (root / 'labels').rglob('*.txt'):
        lines = [line + ' 0.5' * 12 for line in file.read_text().splitlines()]
        file.write_text('\n'.join(lines))


def with_lists(root: Path) -> None:
    (root / 'labels/classes.txt').write_text('a\nb')
    (root / 'labels/README.txt').write_text('labels of 2024')


def counted_in_floats(root: Path) -> None:
    for file in (root / 'labels').rglob('*.txt'):
        rows = [line.split(' ', 1) for line in file.read_text().splitlines()]
        file.write_text('\n'.join(f'{label}.000000 {rest}' for label, rest in rows))


def without_test(root: Path) -> None:
    file = root / 'data.yaml'
    file.write_text(file.read_text() + 'test:  # optional\nvalid: null\nnc: "10"\n')


def beside_other_yaml(root: Path) -> None:
    (root / 'compose.yaml').write_text('---\na: 1\n---\nb: 2\n')
    (root / 'hyp.yaml').write_text('a: [1, 2\nb: {')


@pytest.mark.parametrize(
    'change',
    [moved, quoted, posed, with_lists, counted_in_floats, without_test, beside_other_yaml],
)
def test_yolo_folders_as_they_come(digits, tmp_path, change):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    before = by_file(tmp_path)
    classes = labels_of(tmp_path).classes
    change(tmp_path)
    assert by_file(tmp_path) == before
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.classes[: len(classes)] == classes
    assert not [note for note in labels.notes if 'no image of' in note]


@pytest.mark.parametrize(
    'form',
    [
        'names: [{}]',
        'nc: 4\nnames:\n  0: {}\n  1: {}\n  2: {}\n  3: {}',
        'nc: 4.0\nnames:\n  00: {}\n  01: {}\n  02: {}\n  03: {}',
    ],
)
@pytest.mark.parametrize('names', [('yes', 'no', 'null', 'on'), ('007', '1e3', '~', '2024-13-01')])
def test_names_of_classes_are_the_words_of_the_yaml_file(digits, tmp_path, form, names):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    text = form.replace('[{}]', '[{}, {}, {}, {}]').format(*names)
    (tmp_path / 'data.yaml').write_text(text)
    for file in (tmp_path / 'labels').rglob('*.txt'):
        file.write_text('\n'.join(f'{label} 0.5 0.5 0.{label + 2} 0.2' for label in range(4)))
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.classes == names
    assert tuple(instance.name for instance in labels.images[0].instances) == names


def test_names_of_roboflows_darknet(digits, tmp_path):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    (tmp_path / 'data.yaml').unlink()
    for split in ('train', 'val'):
        (tmp_path / 'labels' / split / '_darknet.labels').write_text('\n'.join(CLASSES))
    assert labels_of(tmp_path).classes == CLASSES


def renumbered(root: Path) -> None:
    describe(root, names={number + 1: str(number) for number in range(10)})


@pytest.mark.parametrize(
    'listed, names',
    [
        ('cat 2\ndog 0\nowl 1', ['dog', 'owl', 'cat']),
        ('2 cat\n0 dog\n1 owl', ['dog', 'owl', 'cat']),
        ('id,name\n2,cat\n0,dog\n1,owl', ['dog', 'owl', 'cat']),
        ('cat\ndog\nowl', ['cat', 'dog', 'owl']),
        ('2 wheeler\n4 wheeler\n6 wheeler', ['2 wheeler', '4 wheeler', '6 wheeler']),
        ('5 euro\n10 euro\n50 cent', ['5 euro', '10 euro', '50 cent']),
        ('1 cent\n2 euro\n5 pound', ['1 cent', '2 euro', '5 pound']),
        ('0 cat\n5 dog\n9 owl', ['0 cat', '5 dog', '9 owl']),
    ],
)
def test_numbers_in_a_list_of_yolo_classes(digits, tmp_path, listed, names):
    content = written.load_scenes(digits)
    written.yolo(content, tmp_path, False)
    (tmp_path / 'data.yaml').unlink()
    (tmp_path / 'classes.txt').write_text(listed)
    for file in (tmp_path / 'labels').rglob('*.txt'):
        file.write_text('0 0.5 0.5 0.2 0.2\n1 0.3 0.3 0.2 0.2\n2 0.7 0.7 0.2 0.2')
    labels = labels_of(tmp_path)
    assert labels.problems == []
    assert [instance.name for instance in labels.images[0].instances] == names
    assert list(labels.classes) == names


def labelled_twice(root: Path) -> None:
    file = next((root / 'labels/train').iterdir())
    (root / 'labels' / file.name).write_text('0 0.5 0.5 0.1 0.1')


def without_an_image(root: Path) -> None:
    # an image of that name in train is not meant
    file = next((root / 'images/val').iterdir())
    file.rename(root / 'images/train' / file.name)
    (root / 'labels/train' / f'{file.stem}.txt').write_text('0 0.5 0.5 0.1 0.1')


@pytest.mark.parametrize(
    'change, kind, words',
    [
        (renumbered, 'classes do not fit', '1, 2, 3, 4, 5, 6, 7, 8, 9, 10, not 0 to 9'),
        (labelled_twice, 'two label files for an image', 'labels/train/'),
        (without_an_image, 'label without an image', 'no image val_0000'),
    ],
)
def test_yolo_folders_that_are_wrong(digits, tmp_path, change, kind, words):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    change(tmp_path)
    (problem,) = (p for p in labels_of(tmp_path).problems if p.kind == kind)
    assert words in problem.detail


@pytest.mark.parametrize('base', ['/home/u/ds', 'C:\\ds', '..', ''])
def test_lists_of_a_folder_that_has_moved(digits, tmp_path, base):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    (tmp_path / 'lists').mkdir()
    for split, images in (('train', 'val'), ('val', 'train')):  # not as the folders say
        files = sorted((tmp_path / 'images' / images).iterdir())
        lines = [f'{base}/images/{images}/{file.name}' for file in files]
        (tmp_path / f'lists/{split}.txt').write_text('\n'.join(lines))
    describe(tmp_path, path='', train=f'{base}/lists/train.txt', val=f'{base}/lists/val.txt')
    swapped = {'train': 'val', 'val': 'train'}
    for file, (split, _) in by_file(tmp_path).items():
        assert split == swapped[file.split('/')[1]]


def test_split_that_is_named_and_not_there_is_told(digits, tmp_path):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    for name in 'ab':
        written.yolo(written.load_scenes(digits), tmp_path / name, False)
        describe(tmp_path / name, test='../elsewhere/test')
    notes = [note for note in labels_of(tmp_path).notes if 'no image of' in note]
    assert notes == ['no image of test: ../elsewhere/test (a/data.yaml and 1 more)']


def image_sets(root: Path, **lists: list[str]) -> None:
    shutil.rmtree(root / 'ImageSets')
    for name, lines in lists.items():
        file = root / 'ImageSets' / name.replace('_', '/', 1)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix('.txt').write_text('\n'.join(lines))


def test_image_sets(digits, tmp_path):
    written.voc(written.load_scenes(digits), tmp_path, False)
    stems = sorted(file.stem for file in (tmp_path / 'Annotations').iterdir())

    def splits() -> list[str | None]:
        return [image.split for image in labels_of(tmp_path).images]

    image_sets(tmp_path, Main_trainval=stems[:10], Main_test=stems[10:])
    assert splits()[10:] == ['test'] * 3 and sorted(set(splits()[:10])) == ['train', 'val']
    image_sets(tmp_path, Main_trainval=stems[:10])
    assert len(splits()) == 10
    image_sets(
        tmp_path,
        Main_trainval=stems[:12],
        Main_train=[f'{stem}  1' for stem in stems[:6]],
        Main_val=[f'{stem}.png -1' for stem in stems[6:10]],
        Layout_val=stems[:6],
    )
    assert splits() == ['train'] * 6 + ['val'] * 4 + ['train'] * 2
    assert any('1 of 13 files, such as' in note for note in labels_of(tmp_path).notes)


MISSING = 'missing image', 'label without an image'


def kinds_of(root: Path, form: str) -> list[str]:
    return [problem.kind for problem in labels_of(root, format=form).problems]


@pytest.mark.parametrize('form', ['voc', 'labelme', 'cvat', 'coco', 'yolo'])
def test_mask_does_not_stand_for_a_photo_that_is_missing(digits, tmp_path, form):
    written.WRITERS[form](written.load_scenes(digits), tmp_path, False)
    (photo,) = tmp_path.rglob('train_000001.png')
    (tmp_path / 'SegmentationClass').mkdir()
    photo.rename(tmp_path / 'SegmentationClass' / photo.name)
    (kind,) = kinds_of(tmp_path, form)
    assert kind in MISSING


@pytest.mark.parametrize('form', ['voc', 'labelme', 'cvat', 'coco', 'yolo'])
def test_photo_of_another_split_does_not_stand_for_one_that_is_missing(digits, tmp_path, form):
    """The labels of the first train image say that it is in train, and it is in val."""
    written.WRITERS[form](written.load_scenes(digits), tmp_path, False)
    place = {'voc': 'Annotations', 'labelme': 'train', 'yolo': 'labels'}.get(form)
    name = 'train_000001'
    for scene in ('train_000001', 'train_000002', 'val_000001'):
        (photo,) = tmp_path.rglob(f'{scene}.png')
        split = 'train' if scene == 'train_000002' else 'val'
        (tmp_path / 'pictures' / split).mkdir(parents=True, exist_ok=True)
        photo.rename(tmp_path / 'pictures' / split / photo.name)
    if place is not None:
        (labels,) = [*(tmp_path / place).rglob(f'{name}.*')]
        (tmp_path / 'said/train').mkdir(parents=True)
        labels.rename(tmp_path / 'said/train' / labels.name)
        if form == 'yolo':
            (tmp_path / 'said').rename(tmp_path / 'labels/said')
    else:
        for file in (*tmp_path.glob('*.json'), *tmp_path.glob('*.xml')):
            file.write_text(file.read_text().replace(f'"{name}.png', f'"train/{name}.png'))
    (kind,) = kinds_of(tmp_path, form)
    assert kind in MISSING


def test_coco_files_keep_their_photos_where_one_is_missing(digits, tmp_path):
    """Masks of all images and photos of another split are more than the photos that are left."""
    shutil.copytree(digits, tmp_path / 'data')
    photos = tmp_path / 'data/images/validation'
    missing = sorted(photos.iterdir())[2]
    (tmp_path / 'data/masks').mkdir()
    for photo in photos.iterdir():
        shutil.copy(photo, tmp_path / 'data/masks' / photo.name)
    missing.unlink()
    labels = labels_of(tmp_path / 'data', format='coco')
    (problem,) = labels.problems
    assert missing.name in problem.item and 'instances_val.json' in problem.detail
    files = [image.file for image in labels.images]
    assert not any('mask' in file for file in files)
    assert sum('images/validation/' in file for file in files) == 4


def images_of(root: Path, form: str) -> set[str]:
    labels = labels_of(root, format=form)
    assert labels.problems == []
    return {image.file for image in labels.images}


@pytest.mark.parametrize('form', ['voc', 'labelme', 'cvat', 'coco', 'yolo'])
@pytest.mark.parametrize('place', ['annotations', 'labels/images'])
def test_photos_may_lie_in_a_folder_for_masks_with_their_labels(digits, tmp_path, form, place):
    written.WRITERS[form](written.load_scenes(digits), tmp_path / 'old', False)
    for file in [*(tmp_path / 'old').rglob('*.*')]:
        is_photo = file.suffix == '.png'
        target = tmp_path / place if is_photo else tmp_path / place.split('/')[0]
        if form == 'voc' and 'ImageSets' in file.parts:
            target = tmp_path / 'ImageSets'
        target.mkdir(parents=True, exist_ok=True)
        file.rename(target / file.name)
    shutil.rmtree(tmp_path / 'old')
    photos = images_of(tmp_path, form)
    assert len(photos) == 13
    Image.new('RGB', (8, 8)).save(tmp_path / 'logo.png')
    assert images_of(tmp_path, form) - {'logo.png'} == photos


@pytest.mark.parametrize('form', ['voc', 'labelme', 'coco', 'yolo'])
def test_masks_beside_labels_do_not_stand_for_photos(digits, tmp_path, form):
    written.WRITERS[form](written.load_scenes(digits), tmp_path, False)
    (tmp_path / 'labels').mkdir(exist_ok=True)
    for photo in [*tmp_path.rglob('*.png')]:
        shutil.copy(photo, tmp_path / 'labels' / photo.name)
    for file in [*tmp_path.rglob('*.json'), *tmp_path.rglob('*.xml')]:
        file.rename(tmp_path / 'labels' / file.name)
    (photo,) = (p for p in tmp_path.rglob('train_000001.png') if p.parent.name != 'labels')
    photo.unlink()
    (kind,) = kinds_of(tmp_path, form)
    assert kind in MISSING


@pytest.mark.parametrize('listed', [None, 1])
def test_labels_of_coco_are_not_scored_on_a_photo_of_another_split(digits, tmp_path, listed):
    """Both splits number their photos from 1; listed: how many entries the file has."""
    shutil.copytree(digits, tmp_path / 'data')
    missing = sorted((tmp_path / 'data/images/validation').iterdir())[0]
    assert (tmp_path / 'data/images/training' / missing.name).is_file()
    file = tmp_path / 'data/annotations/instances_val.json'
    content = json.loads(file.read_text())
    content['images'] = content['images'][:listed]
    kept = {image['id'] for image in content['images']}
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] in kept]
    file.write_text(json.dumps(content))
    missing.unlink()
    problems = labels_of(tmp_path / 'data', format='coco').problems
    assert [(p.kind, p.item) for p in problems] == [('missing image', missing.name)]


@pytest.mark.parametrize('subsets', [('Train', 'Validation'), ('left', 'right')])
def test_subsets_of_cvat_have_their_own_images(digits, tmp_path, subsets):
    content = written.load_scenes(digits)
    content = [content[0], content[-1]]
    entries = ''
    for scene, subset in zip(content, subsets, strict=True):
        written.place(scene, tmp_path / f'images/{subset}/frame_000000.png')
        left, top, width, height = scene.objects[0].box
        entries += (
            f'<image name="frame_000000.png" subset="{subset}"><box label="a" xtl="{left}" '
            f'ytl="{top}" xbr="{left + width}" ybr="{top + height}"/></image>'
        )
    (tmp_path / 'annotations.xml').write_text(f'<annotations>{entries}</annotations>')
    labels = FORMATS['cvat'].read(open_folder(str(tmp_path)), ['annotations.xml'])
    assert [image.file for image in labels.images] == [
        f'images/{subset}/frame_000000.png' for subset in subsets
    ]


@pytest.mark.parametrize('form', ['voc', 'labelme', 'cvat', 'coco', 'yolo'])
@pytest.mark.parametrize('of_labels, of_photos', [('NFC', 'NFD'), ('NFD', 'NFC')])
def test_accents_of_names_may_be_written_in_two_ways(digits, tmp_path, form, of_labels, of_photos):
    content = written.load_scenes(digits)
    for scene in content:
        scene.stem = unicodedata.normalize(of_labels, f'büro_{scene.stem}')
    written.WRITERS[form](content, tmp_path, False)
    for file in tmp_path.rglob('*.png'):
        file.rename(file.with_name(unicodedata.normalize(of_photos, file.name)))
    labels = labels_of(tmp_path)
    assert labels.problems == [] and len(labels.images) == len(content)
    assert labels.counts().total() == sum(len(scene.objects) for scene in content)
    assert all((tmp_path / image.file).is_file() for image in labels.images)


@pytest.mark.parametrize('form', ['voc', 'labelme', 'cvat', 'coco', 'yolo'])
def test_photo_of_a_kind_that_is_not_read_is_told(digits, tmp_path, form):
    written.WRITERS[form](written.load_scenes(digits), tmp_path, False)
    (photo,) = tmp_path.rglob('train_000001.png')
    photo = photo.rename(photo.with_suffix('.HEIC'))
    (found,) = labels_of(tmp_path).problems
    place = photo.relative_to(tmp_path).as_posix()
    assert found.detail.endswith(f' ({place} is of a kind that is not read: convert it)')


@pytest.mark.parametrize('form', ['voc', 'labelme', 'cvat', 'coco'])
def test_photos_in_no_label_file_are_told(digits, tmp_path, form):
    written.WRITERS[form](written.load_scenes(digits), tmp_path, False)
    words = 'without labels are left out'
    assert not any(words in note for note in labels_of(tmp_path).notes)
    Image.new('RGB', (9, 9)).save(tmp_path / 'a.png')
    assert f'1 images {words}, such as a.png' in labels_of(tmp_path).notes


@pytest.mark.parametrize('listed', ['classes.txt', 'data.yaml'])
def test_yolo_names_that_are_no_utf_8_or_come_twice(digits, tmp_path, listed):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    (tmp_path / 'data.yaml').unlink()
    names = [*CLASSES[:8], 'zwölf', CLASSES[0]]
    lines = [f'{number}: {name}' for number, name in enumerate(names)]
    text = '\n'.join(names) if listed == 'classes.txt' else f'names: {{{", ".join(lines)}}}'
    (tmp_path / listed).write_text(text, encoding='latin-1')
    labels = labels_of(tmp_path)
    assert [(p.kind, p.item) for p in labels.problems] == [('no text in UTF-8', listed)]
    assert (
        f'{listed}: several numbers have the name {CLASSES[0]}, and are one class' in labels.notes
    )
    (tmp_path / listed).write_text(text, encoding='utf-8')
    assert labels_of(tmp_path).problems == []


def test_photo_elsewhere_is_found_where_the_folder_has_no_such_split(digits, tmp_path):
    written.cvat(written.load_scenes(digits), tmp_path, False)
    file = tmp_path / 'annotations.xml'
    file.write_text(file.read_text().replace('name="train_', 'name="old/train/train_'))
    before = [scene.split for scene in written.load_scenes(digits)]
    (tmp_path / 'images').rename(tmp_path / 'val')
    labels = labels_of(tmp_path)
    assert labels.problems == [] and len(labels.images) == len(before)


@pytest.mark.parametrize('form', ['voc', 'labelme'])
def test_name_with_a_dot_is_not_cut(digits, tmp_path, form):
    written.WRITERS[form](written.load_scenes(digits), tmp_path, False)
    ending = '.xml' if form == 'voc' else '.json'
    (labels,) = tmp_path.rglob(f'train_000001{ending}')
    text = labels.read_text().replace('train_000001', 'train_000002.b')
    labels.with_name(f'train_000002.b{ending}').write_text(text)
    labels.unlink()
    assert kinds_of(tmp_path, form) == ['label without an image']
    (photo,) = tmp_path.rglob('train_000001.png')
    photo.rename(photo.with_name('train_000002.b.png'))
    assert kinds_of(tmp_path, form) == []


@pytest.mark.parametrize('only', ['test', 'val'])
def test_images_beside_a_single_list_are_trained_on(digits, tmp_path, only):
    written.voc(written.load_scenes(digits), tmp_path, False)
    stems = sorted(file.stem for file in (tmp_path / 'Annotations').iterdir())
    image_sets(tmp_path, **{f'Main_{only}': stems[10:]})
    splits = [image.split for image in labels_of(tmp_path).images]
    assert splits[10:] == [only] * 3 and 'train' in splits[:10] and 'test' not in splits[:10]


@pytest.mark.parametrize('name', ['photo 1', 'a.v2', 'a.v2 0'])
@pytest.mark.parametrize('form', ['{}', '{} 1', '{}.png'])
def test_image_sets_name_images_of_any_name(digits, tmp_path, name, form):
    written.voc(written.load_scenes(digits), tmp_path, False)
    first, *rest = sorted(file.stem for file in (tmp_path / 'Annotations').iterdir())
    (tmp_path / 'Annotations' / f'{first}.xml').rename(tmp_path / f'Annotations/{name}.xml')
    (tmp_path / 'JPEGImages' / f'{first}.png').rename(tmp_path / f'JPEGImages/{name}.png')
    image_sets(tmp_path, Main_train=[form.format(name), *rest[:8]], Main_val=rest[8:])
    assert by_file(tmp_path)[f'JPEGImages/{name}.png'][0] == 'train'


def test_a_part_that_starts_at_zero_moves_no_box(digits, tmp_path):
    written.voc(written.load_scenes(digits), tmp_path, False)
    before = by_file(tmp_path)
    file = tmp_path / 'Annotations/train_000001.xml'
    part = '<part><name>head</name><bndbox><xmin>0</xmin><ymin>0</ymin></bndbox></part></object>'
    file.write_text(file.read_text().replace('</object>', part))
    assert by_file(tmp_path) == before


def test_boxes_that_count_from_zero_in_floats(digits, tmp_path):
    written.voc(written.load_scenes(digits), tmp_path, False)
    file = sorted((tmp_path / 'Annotations').iterdir())[0]
    text = file.read_text()
    file.write_text(re.sub('<xmin>.*?</xmin>', '<xmin>0.0</xmin>', text, count=1))
    labels = labels_of(tmp_path)
    assert any('count from 0' in note for note in labels.notes)
    assert min(instance.box[0] for instance in labels.instances()) == 0


@pytest.mark.parametrize(
    'subset, split', [('Train', 'train'), ('Validation', 'val'), ('Test', 'test'), ('job 3', None)]
)
def test_subsets_of_cvat(digits, tmp_path, subset, split):
    content = written.load_scenes(digits)
    others = ['train', 'val'] * 6
    for scene, name in zip(content, [subset, *others], strict=True):
        scene.split = name
    written.cvat(content, tmp_path, False)
    folder = open_folder(str(tmp_path))
    labels = FORMATS['cvat'].read(folder, ['annotations.xml'])
    assert [image.split for image in labels.images] == [split, *others]


@pytest.mark.parametrize('encoding', ['gbk', 'gb2312', 'shift_jis', 'latin-1'])
def test_xml_of_other_encodings(digits, tmp_path, encoding):
    name = 'caf\xe9' if encoding == 'latin-1' else '\u72ac'
    content = written.load_scenes(digits)
    for item in content[0].objects:
        item.name = name
    written.voc(content, tmp_path, False)
    (file,) = tmp_path.rglob(f'{content[0].stem}.xml')
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n{file.read_text()}'
    file.write_bytes(text.encode(encoding))
    labels = labels_of(tmp_path, format='voc')
    assert labels.problems == [] and labels.counts()[name] == len(content[0].objects)


@pytest.mark.parametrize('form', ['voc', 'cvat'])
@pytest.mark.parametrize('encoding', ['utf-16', 'utf-16-le', 'utf-16-be'])
@pytest.mark.parametrize('head', ['<?xml version="1.0" encoding="utf-16"?>\n', ''])
def test_xml_of_utf_16(digits, tmp_path, form, encoding, head):
    written.WRITERS[form](written.load_scenes(digits), tmp_path, False)
    counts = labels_of(tmp_path).counts()
    for file in tmp_path.rglob('*.xml'):
        file.write_bytes((head + file.read_text()).encode(encoding))
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.counts() == counts


@pytest.mark.parametrize('closed', ['more', 'photos', '.cache'])
def test_folders_that_cannot_be_read_are_told(digits, tmp_path, closed, close_folders):
    written.coco(written.load_scenes(digits), tmp_path, False)
    (tmp_path / 'more').mkdir()
    (tmp_path / '.cache').mkdir()
    shutil.copy(next((tmp_path / 'photos').iterdir()), tmp_path / 'other.png')
    close_folders(closed)
    request = Request(str(tmp_path), '', '')
    if closed == 'photos':  # which are missing
        with pytest.raises(UserError) as caught:
            read_labels(request, open_folder(str(tmp_path)), False)
        assert 'folder that cannot be read (1):\n  photos: Permission denied' in str(caught.value)
        return
    labels, notes = read_labels(request, open_folder(str(tmp_path)), False)
    told = 'folder that cannot be read, left out: more (Permission denied)'
    assert labels.problems == [] and (told in notes) == (closed == 'more')


@pytest.mark.parametrize('form, closed', [('voc', 'Annotations'), ('voc', 'JPEGImages')])
def test_closed_folder_is_told_where_nothing_is_found(
    digits, tmp_path, form, closed, close_folders
):
    written.WRITERS[form](written.load_scenes(digits), tmp_path, False)
    close_folders(closed)
    with pytest.raises(UserError, match=f'{closed}, which cannot be read .Permission denied.'):
        labels_of(tmp_path)


@pytest.mark.parametrize('form, closed', [('voc', 'more'), ('voc', 'JPEGImages')])
def test_folders_that_can_be_listed_and_not_entered_are_told(
    digits, tmp_path, form, closed, monkeypatch
):
    written.WRITERS[form](written.load_scenes(digits), tmp_path, False)
    (tmp_path / 'more').mkdir()
    shutil.copy(next(digits.rglob('*.png')), tmp_path / 'more/other.png')
    (tmp_path / 'gone.png').symlink_to('nowhere.png')
    look = os.stat

    def stat(path, *args, **options):
        if Path(str(path)).parent.name == closed:
            raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        return look(path, *args, **options)

    monkeypatch.setattr(os, 'stat', stat)
    request = Request(str(tmp_path), '', '')
    if closed == 'JPEGImages':  # which are missing
        with pytest.raises(UserError, match='JPEGImages: Permission denied'):
            read_labels(request, open_folder(str(tmp_path)), False)
        return
    labels, notes = read_labels(request, open_folder(str(tmp_path)), False)
    told = 'folder that cannot be read, left out: more (Permission denied)'
    assert labels.problems == [] and told in notes


def test_names_that_are_no_text_are_told_together(digits, tmp_path, monkeypatch):
    written.voc(written.load_scenes(digits), tmp_path, False)
    for folder, ending in (('JPEGImages', 'png'), ('Annotations', 'xml')):
        file = tmp_path / folder / f'train_000001.{ending}'
        file.rename(os.fsdecode(os.fsencode(file.with_name('caf')) + b'\xe9.' + ending.encode()))
    with pytest.raises(UserError, match=r'(?s)2 .*no UTF-8.*caf.*\.png') as caught:
        labels_of(tmp_path)
    str(caught.value).encode()
    # in another locale the names may be right
    monkeypatch.setattr(sys, 'getfilesystemencoding', lambda: 'ascii')
    with pytest.raises(UserError, match=r'(?s)2 .*are no ascii.*LC_ALL=C.UTF-8'):
        labels_of(tmp_path)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['.tif', '.jpg', '.png', '.webp'])
def test_size_of_a_turned_photo_is_as_it_is_loaded(tmp_path, suffix, orientation):
    file = tmp_path / f'photo{suffix}'
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new('RGB', (30, 20)).save(file, exif=exif)
    # mmcv's loader decodes bytes; cv2.imread does not take turned TIFFs
    height, width = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    assert displayed_size(file) == (width, height)


EXIF = Image.Exif()
EXIF[0x0112] = 6
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
PARTS = {
    'exif': (b'eXIf', EXIF.tobytes()[6:]),
    'damaged exif': (b'eXIf', b'II*\0'),
    'text': (
        b'zTXt',
        b'Raw profile type exif\0\0'
        + zlib.compress(f'\nexif\n{len(EXIF.tobytes()):8}\n{EXIF.tobytes().hex()}\n'.encode()),
    ),
    'xmp': (b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0' + XMP),
}


def add_part(file: Path, part: str, behind: bytes) -> None:
    """Inserts one into a PNG."""
    before, mark, after = file.read_bytes().partition(behind)
    kind, content = PARTS[part]
    chunk = len(content).to_bytes(4, 'big') + kind + content
    chunk += zlib.crc32(kind + content).to_bytes(4, 'big')
    file.write_bytes(before[:-4] + chunk + before[-4:] + mark + after)


@pytest.mark.parametrize('part', PARTS)
@pytest.mark.parametrize('behind', [b'IDAT', b'IEND'])
def test_size_of_a_png_is_as_it_is_loaded_and_nothing_is_decoded(
    tmp_path, part, behind, monkeypatch
):
    file = tmp_path / 'photo.png'
    Image.new('RGB', (30, 20)).save(file)
    add_part(file, part, behind)
    height, width = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    assert (part == 'exif') == (height > width)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, 'load', None)
    assert displayed_size(file) == (width, height)


@pytest.mark.parametrize('behind', [b'IDAT', b'IEND'])
def test_photo_with_a_damaged_entry_passes_the_check(digits, tmp_path, behind, monkeypatch, capsys):
    written.yolo(written.load_scenes(digits), tmp_path / 'photos', False)
    file = next((tmp_path / 'photos/images').rglob('*.png'))
    add_part(file, 'damaged exif', behind)
    monkeypatch.chdir(tmp_path)
    assert main(['verify', 'photos']) == 0, capsys.readouterr()


def test_photo_that_only_xmp_turns_is_not_turned(tmp_path):
    file = tmp_path / 'photo.jpg'
    Image.new('RGB', (30, 20)).save(file, xmp=XMP)
    height, width = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    assert displayed_size(file) == (width, height)


def test_mask_in_a_label_above_the_limit_is_told(digits, tmp_path):
    written.labelme(written.load_scenes(digits), tmp_path, False)
    (file,) = tmp_path.rglob('train_000001.json')
    wide = tmp_path / 'wide.png'
    Image.new('L', (8, 8)).save(wide)
    enlarged(wide, 20_000)
    content = json.loads(file.read_text())
    mask = base64.b64encode(wide.read_bytes()).decode()
    content['shapes'][0].update(shape_type='mask', mask=mask)
    file.write_text(json.dumps(content))
    wide.unlink()
    (problem,) = labels_of(tmp_path).problems
    assert problem.kind == 'malformed label' and 'train_000001.json, shape 1' in problem.item
    assert '20000x20000 pixels, more than the 268435456' in problem.detail


def write_lists(root: Path, listed: dict[str, list[str]]) -> None:
    for file, names in listed.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        is_yaml = file.endswith('.yaml')
        text = yaml.safe_dump(dict(names=names)) if is_yaml else '\n'.join(names)
        (root / file).write_text(text)


OTHERS = [f'other {name}' for name in CLASSES]
REVERSED = list(CLASSES[::-1])


@pytest.mark.parametrize(
    'listed, first, last',
    [
        ({'data.yaml': REVERSED, 'clone/data/coco.yaml': OTHERS}, REVERSED, REVERSED),
        ({'labels/classes.txt': REVERSED, 'clone/data/coco.yaml': OTHERS}, REVERSED, REVERSED),
        (
            {'labels/train/classes.txt': REVERSED, 'labels/val/classes.txt': OTHERS},
            REVERSED,
            OTHERS,
        ),
        ({'labels/train/classes.txt': REVERSED, 'classes.txt': OTHERS}, REVERSED, OTHERS),
    ],
)
def test_names_of_yolo_classes_are_those_of_the_nearest_list(digits, tmp_path, listed, first, last):
    content = written.load_scenes(digits)
    written.yolo(content, tmp_path, False)
    (tmp_path / 'data.yaml').unlink()
    write_lists(tmp_path, listed)
    labels = labels_of(tmp_path)
    assert labels.problems == []
    for image in labels.images:
        names = first if '/train/' in image.file else last
        (scene,) = (scene for scene in content if scene.stem == Path(image.file).stem)
        expected = [names[CLASSES.index(item.name)] for item in scene.objects]
        assert [instance.name for instance in image.instances] == expected
    (note,) = (note for note in labels.notes if note.startswith('lists of classes differ'))
    assert min(listed) in note


def test_yolo_exports_side_by_side_have_their_own_classes(digits, tmp_path):
    content = written.load_scenes(digits)
    for name in 'ab':
        written.yolo(content, tmp_path / name, False)
    describe(tmp_path / 'b', names=REVERSED)
    labels = labels_of(tmp_path)
    assert labels.problems == [] and len(labels.images) == 2 * len(content)
    assert {image.split for image in labels.images} == {'train', 'val'}
    names = {image.file: [i.name for i in image.instances] for image in labels.images}
    for file, found in names.items():
        if file.startswith('a/'):
            swapped = [REVERSED[CLASSES.index(name)] for name in found]
            assert names[f'b/{file.removeprefix("a/")}'] == swapped


def test_of_yolo_exports_with_equal_names_one_has_keypoints(digits, tmp_path):
    content = written.load_scenes(digits)
    for name in 'abc':
        written.yolo(content, tmp_path / name, False)
    posed(tmp_path / 'b')
    found = by_file(tmp_path)
    boxes = {file: [i.box for i in instances] for file, (_, instances) in found.items()}
    for file in (file for file in boxes if file.startswith('a/')):
        assert boxes[f'b/{file[2:]}'] == boxes[f'c/{file[2:]}'] == boxes[file]


def test_yolo_classes_of_merged_exports_may_be_numbered_anew(digits, tmp_path):
    for name in 'ab':
        written.yolo(written.load_scenes(digits), tmp_path / name, False)
    write_lists(tmp_path, {'data.yaml': [*OTHERS, *CLASSES]})
    (first, second) = labels_of(tmp_path).problems
    assert first.kind == second.kind == 'lists of classes differ'
    assert (first.item, second.item) == ('a/data.yaml, data.yaml', 'b/data.yaml, data.yaml')


def test_a_plain_list_of_another_name_says_less(digits, tmp_path):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    (tmp_path / 'data.yaml').unlink()
    write_lists(tmp_path, {'classes.txt': list(CLASSES), 'labels.txt': OTHERS})
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.classes == CLASSES


def test_a_folder_that_is_linked_from_two_splits_is_of_none(digits, tmp_path):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    (tmp_path / 'data.yaml').unlink()
    (tmp_path / 'classes.txt').write_text('\n'.join(CLASSES))
    (tmp_path / 'images/train').rename(tmp_path / 'pool')
    for split in ('train', 'test'):
        (tmp_path / 'images' / split).symlink_to('../pool')
    splits = {file.split('/')[0]: split for file, (split, _) in by_file(tmp_path).items()}
    assert splits == {'pool': 'train', 'images': 'val'}


@pytest.mark.parametrize(
    'listed, is_told',
    [
        ({'coco.yaml': OTHERS}, True),
        ({'coco.yaml': list(CLASSES)}, False),
        ({'labels/train/classes.txt': list(CLASSES)}, False),
    ],
)
def test_lists_of_yolo_classes_that_nothing_tells_apart(digits, tmp_path, listed, is_told):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    write_lists(tmp_path, listed)
    labels = labels_of(tmp_path)
    told = [('lists of classes differ', 'coco.yaml, data.yaml')] if is_told else []
    assert [(p.kind, p.item) for p in labels.problems] == told
    assert any('lists of classes' in note for note in labels.notes) == is_told


@pytest.mark.parametrize(
    'place, has_other, kinds, notes',
    [
        ('', False, ['damaged file'], 0),
        ('labels', True, ['damaged file'], 0),
        ('', True, [], 1),
        ('clone/docs', True, [], 0),
    ],
)
def test_damaged_description_is_told_where_it_may_be_meant(
    digits, tmp_path, place, has_other, kinds, notes
):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    if not has_other:
        (tmp_path / 'data.yaml').unlink()
    (tmp_path / place / 'a.yaml').write_text('names: [one, two')
    labels = labels_of(tmp_path)
    assert [problem.kind for problem in labels.problems] == kinds
    told = [n for n in labels.notes if n.startswith('damaged file, not used: a.yaml (')]
    assert len(told) == notes


@pytest.mark.parametrize('names, kinds', [('one\ntwo', ['lists of classes differ']), (None, [])])
def test_lists_of_one_name_beside_masks(digits, tmp_path, names, kinds):
    written.masks(digits, tmp_path, 'ids')
    text = (tmp_path / 'classes.txt').read_text()
    (tmp_path / 'validation/classes.txt').write_text(names or text)
    labels, _ = read_labels(Request(str(tmp_path), '', ''), open_folder(str(tmp_path)), True)
    assert [p.kind for p in labels.problems] == kinds


@pytest.mark.parametrize('form', ['voc', 'labelme'])
@pytest.mark.parametrize('place', ['', 'more'])
def test_of_two_endings_the_label_names_the_one_that_is_meant(digits, tmp_path, form, place):
    """Where both lie beside each other; tools rename images and leave the name inside."""
    written.WRITERS[form](written.load_scenes(digits), tmp_path, False)
    (photo,) = tmp_path.rglob('train_000001.png')
    other = photo.with_suffix('.jpg')
    Image.new('RGB', (96, 64)).save(other)
    (tmp_path / 'zz' / place).mkdir(parents=True)
    meant = other if place else photo
    if place:
        photo.rename(tmp_path / 'zz' / place / photo.name)
        labels = next(tmp_path.rglob('train_000001.xml' if form == 'voc' else 'train_000001.json'))
        labels.rename(other.with_suffix(labels.suffix))
    files = [image.file for image in labels_of(tmp_path, format=form).images]
    assert [f for f in files if 'train_000001' in f] == [meant.relative_to(tmp_path).as_posix()]


@pytest.mark.parametrize('content', ['0 0.5 0.5 0.2 0.2', ''])
def test_yolo_label_of_two_images_is_told(digits, tmp_path, content):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    (photo,) = tmp_path.rglob('train_000001.png')
    Image.new('RGB', (96, 64)).save(photo.with_suffix('.jpg'))
    (tmp_path / 'labels/train/train_000001.txt').write_text(content)
    problems = labels_of(tmp_path).problems
    if not content:  # both are background
        assert problems == []
        return
    (problem,) = problems
    assert problem.kind == 'label file of several images'
    assert problem.item == 'labels/train/train_000001.txt'
    for ending in ('jpg', 'png'):
        assert f'images/train/train_000001.{ending}' in problem.detail


def shaped(root: Path, **fields) -> list:
    """Changes the first shape of a labelme file; returns the objects of its image."""
    (file,) = root.rglob('train_000001.json')
    content = json.loads(file.read_text())
    content['shapes'][0].update(fields)
    file.write_text(json.dumps(content))
    labels = labels_of(root)
    assert labels.problems == []
    (image,) = (image for image in labels.images if 'train_000001' in image.file)
    return list(image.instances)


def test_labelme_file_with_sorted_keys_is_recognised(digits, tmp_path):
    written.labelme(written.load_scenes(digits), tmp_path, False)
    before = by_file(tmp_path)
    for file in tmp_path.rglob('*.json'):
        content = json.loads(file.read_text()) | dict(imageData='A' * 200_000)
        file.write_text(json.dumps(content, sort_keys=True))
    assert by_file(tmp_path) == before


def test_rectangle_of_four_points(digits, tmp_path):
    written.labelme(written.load_scenes(digits), tmp_path, False)
    before = shaped(tmp_path, points=[[10, 20], [30, 50]])
    assert before[0].box == (10, 20, 20, 30)
    assert shaped(tmp_path, points=[[10, 20], [30, 20.0000001], [30, 50], [10, 50]]) == before


def test_shape_of_no_class_is_told(digits, tmp_path):
    written.labelme(written.load_scenes(digits), tmp_path, False)
    (file,) = tmp_path.rglob('train_000001.json')
    content = json.loads(file.read_text())
    content['shapes'][0]['label'] = None
    file.write_text(json.dumps(content))
    (found,) = labels_of(tmp_path).problems
    assert found.kind == 'object without a class' and 'shape 1' in found.item


@pytest.mark.parametrize('kind', ['rectangle', 'rotation', 'oriented_rectangle'])
def test_turned_rectangle_is_an_outline(digits, tmp_path, kind):
    written.labelme(written.load_scenes(digits), tmp_path, False)
    points = [[20, 10], [30, 20], [20, 30], [10, 20]]
    turned, *_ = shaped(tmp_path, points=points, shape_type=kind)
    assert turned.box == (10, 10, 20, 20)
    assert turned.polygons == ((20, 10, 30, 20, 20, 30, 10, 20),)


def test_rectangle_of_three_points_is_told(digits, tmp_path):
    written.labelme(written.load_scenes(digits), tmp_path, False)
    (file,) = tmp_path.rglob('train_000001.json')
    content = json.loads(file.read_text())
    content['shapes'][0]['points'] = [[1, 2], [20, 2], [20, 30]]
    file.write_text(json.dumps(content))
    (problem,) = labels_of(tmp_path).problems
    assert problem.detail == 'rectangle of 3 points, not 2 or 4'


@pytest.mark.parametrize(
    'place, cover',
    [('annotations/images', 'cover1.png'), ('images', 'annotations/preview_1.png')],
)
def test_frames_are_meant_and_not_a_cover(digits, tmp_path, place, cover):
    content = written.load_scenes(digits)
    written.cvat_video(content, tmp_path / 'annotations', False)
    (tmp_path / place).mkdir()
    for frame in [*tmp_path.rglob('frame_*.png')]:
        frame.rename(tmp_path / place / frame.name)
    Image.new('RGB', (96, 64)).save(tmp_path / cover)
    labels = labels_of(tmp_path)
    assert labels.problems == []
    expected = [f'{place}/frame_{n:06d}.png' for n in range(len(content))]
    assert [image.file for image in labels.images] == expected


def test_videos_of_two_folders_have_their_own_frames(digits, tmp_path):
    content = written.load_scenes(digits)
    for name in ('one', 'two'):
        written.cvat_video(content, tmp_path / name, False)
    labels = labels_of(tmp_path)
    assert labels.problems == []
    assert len({image.file for image in labels.images}) == 2 * len(content)


@pytest.mark.parametrize('rotation, is_told', [('30.0', True), ('360', False), ('0.0', False)])
def test_turned_box_of_cvat(digits, tmp_path, rotation, is_told):
    written.cvat(written.load_scenes(digits), tmp_path, False)
    file = tmp_path / 'annotations.xml'
    file.write_text(file.read_text().replace('<box ', f'<box rotation="{rotation}" ', 1))
    assert kinds_of(tmp_path, 'cvat') == ['malformed label'] * is_told


def as_project(content):
    ids = list(content)
    return {
        '_via_settings': {'core': {'default_filepath': ''}},
        '_via_img_metadata': content,
        '_via_attributes': {'region': {'digit': {'type': 'dropdown'}}, 'file': {}},
        '_via_image_id_list': ids,
    }


def with_regions_by_number(content):
    for entry in content.values():
        entry['regions'] = {str(n): region for n, region in enumerate(entry['regions'])}
    return content


def with_attributes(change):
    def changed(content):
        for entry in content.values():
            for region in entry['regions']:
                region['region_attributes'] = change(region['region_attributes']['digit'])
        return content

    return changed


@pytest.mark.parametrize(
    'change, note',
    [
        (as_project, None),
        (with_regions_by_number, None),
        (with_attributes(lambda name: {'digit': {name: True, 'seen': False}}), None),
        (with_attributes(lambda name: {'colour': 'red', 'Label': name}), 'not colour'),
        (with_attributes(lambda name: {'digit': f' {name} '}), None),
    ],
    ids=['project', 'version 1', 'check boxes', 'several attributes', 'blanks'],
)
def test_files_of_via(digits, tmp_path, change, note):
    written.via(written.load_scenes(digits), tmp_path, True)
    before = labels_of(tmp_path)
    file = tmp_path / 'via_export.json'
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.images == before.images and before.has_masks
    assert [n for n in labels.notes if n not in before.notes] == (
        [f'regions have several attributes: the class is the attribute Label, {note}']
        if note else []
    )  # fmt: skip


@pytest.mark.parametrize('is_same', [True, False])
def test_project_of_via_beside_its_export(digits, tmp_path, is_same):
    written.via(written.load_scenes(digits), tmp_path, True)
    before = labels_of(tmp_path)
    content = json.loads((tmp_path / 'via_export.json').read_text())
    if not is_same:
        next(iter(content.values()))['regions'].pop()
    (tmp_path / 'via_project.json').write_text(json.dumps(as_project(content)))
    labels = labels_of(tmp_path)
    if is_same:
        assert labels.problems == [] and labels.images == before.images
        assert 'via_project.json: left out, it says the same as via_export.json' in labels.notes
    else:
        assert {p.kind for p in labels.problems} == {'image listed more than once'}


def test_regions_of_via_without_attributes_are_of_one_class(digits, tmp_path):
    written.via(written.load_scenes(digits), tmp_path, True)
    file = tmp_path / 'via_export.json'
    content = with_attributes(lambda name: {})(json.loads(file.read_text()))
    file.write_text(json.dumps(content))
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.classes == ('object',)
    assert 'no region has an attribute: all are of the class object' in labels.notes


@pytest.mark.parametrize(
    'change, kind',
    [(lambda name: {'colour': 'red', 'size': name}, 'several attributes that may be the class'),
     (lambda name: {'digit': {name: True, 'nought': name == 'one'}}, 'malformed label')],
)  # fmt: skip
def test_regions_of_via_of_no_single_class_are_told(digits, tmp_path, change, kind):
    written.via(written.load_scenes(digits), tmp_path, True)
    file = tmp_path / 'via_export.json'
    file.write_text(json.dumps(with_attributes(change)(json.loads(file.read_text()))))
    assert {p.kind for p in labels_of(tmp_path).problems} == {kind}


@pytest.mark.parametrize(
    'shape, turn',
    [(dict(name='circle', r=9.5), 0), (dict(name='ellipse', rx=20, ry=8), 0),
     (dict(name='ellipse', rx=20, ry=8, theta=math.pi / 6), 30)],
    ids=['circle', 'ellipse', 'turned ellipse'],
)  # fmt: skip
def test_round_shapes_of_via(digits, tmp_path, shape, turn):
    written.via(written.load_scenes(digits), tmp_path, True)
    file = tmp_path / 'via_export.json'
    content = json.loads(file.read_text())
    region = dict(
        shape_attributes=shape | dict(cx=40, cy=30), region_attributes=dict(digit='one')
    )  # fmt: skip
    next(iter(content.values()))['regions'] = [region]
    file.write_text(json.dumps(content))
    labels = labels_of(tmp_path)
    (found,) = next(i for i in labels.images if i.file == 'train/train_000001.png').instances
    rows, columns = np.mgrid[:64, :96] + 0.5
    across, down = shape.get('rx', shape.get('r')), shape.get('ry', shape.get('r'))
    # downwards and to the right, as a canvas turns
    away = ((columns - 40) + 1j * (rows - 30)) * np.exp(-1j * np.deg2rad(turn))
    inside = (away.real / across) ** 2 + (away.imag / down) ** 2 <= 1
    mask = decode(found, (96, 64))
    assert (mask & inside).sum() / (mask | inside).sum() > 0.95
    left, top, width, height = found.box
    rows, columns = np.nonzero(inside)
    edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert np.allclose([left, top, left + width, top + height], edges, atol=1)


@pytest.mark.parametrize('form', ['yolo', 'coco', 'labelme', 'masks'])
def test_copies_of_photos_in_another_split_are_told(digits, tmp_path, form):
    content = written.load_scenes(digits)
    if form == 'masks':
        written.masks(digits, tmp_path, 'ids')
    else:
        written.WRITERS[form](content, tmp_path, False)
    request = Request(str(tmp_path), '', '')

    def told() -> list[str]:
        labels, _ = read_labels(request, open_folder(str(tmp_path)), form == 'masks')
        assert labels.problems == []
        return [note for note in labels.notes if 'in several splits' in note]

    assert told() == []
    images = open_folder(str(tmp_path)).photos
    first = next(file for file in images if 'train' in file)
    other = next(file for file in images if 'val' in file)
    shutil.copy(tmp_path / first, tmp_path / other)
    (note,) = told()
    assert note.startswith('1 photos are in several splits') and first in note and other in note


@pytest.mark.parametrize('form', ['yolo', 'via', 'labelme', 'voc'])
@pytest.mark.parametrize('orientation', [1, 6])
def test_turned_photos_whose_size_no_label_tells_are_told(digits, tmp_path, form, orientation):
    written.WRITERS[form](written.load_scenes(digits), tmp_path, False)
    (file,) = tmp_path.rglob('train_000001.png')
    with Image.open(file) as picture:
        exif = picture.getexif()
        exif[0x0112] = orientation
        # as large as it was, once it is turned
        turned = picture.transpose(Image.Transpose.ROTATE_90) if orientation > 4 else picture
        turned.save(file, exif=exif)
    labels = labels_of(tmp_path)
    assert labels.problems == []
    notes = [note for note in labels.notes if 'photos are turned' in note]
    is_told = form in ('yolo', 'via') and orientation > 4
    assert len(notes) == is_told


@pytest.mark.parametrize('rotation', [None, '0', '30'])
def test_ellipses_of_cvat(digits, tmp_path, rotation):
    written.cvat(written.load_scenes(digits), tmp_path, True)
    turned = '' if rotation is None else f' rotation="{rotation}"'
    drawn = f'<ellipse label="one" cx="40" cy="30" rx="20" ry="8"{turned}/>'
    written.replaced(tmp_path / 'annotations.xml', '<polygon', f'{drawn}<polygon')
    labels = labels_of(tmp_path)
    assert labels.problems == []
    (outline,) = labels.images[0].instances[0].polygons
    points = np.reshape(outline, (-1, 2))
    angle = math.radians(float(rotation or 0))
    # clockwise, as CVAT turns
    end = 40 + 20 * math.cos(angle), 30 + 20 * math.sin(angle)
    assert np.isclose(points, end).all(axis=1).any()
    assert np.allclose(points.mean(axis=0), (40, 30))
    assert 20 - 1e-6 < np.hypot(*(points - (40, 30)).T).max() < 20 + 1e-6


@pytest.mark.parametrize('folder', ['@eaDir', '#recycle', '$RECYCLE.BIN', '__MACOSX'])
def test_copies_that_servers_and_systems_keep_are_no_data(digits, tmp_path, folder):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    before = labels_of(tmp_path)
    inside = tmp_path / 'images/train' / folder / 'deleted'
    inside.mkdir(parents=True)
    shutil.copy(tmp_path / 'images/train/train_000001.png', inside / 'SYNOPHOTO_THUMB_M.png')
    (inside / 'old.txt').write_text('0 0.5 0.5 0.2 0.2')
    labels = labels_of(tmp_path)
    assert labels.images == before.images and labels.notes == before.notes
