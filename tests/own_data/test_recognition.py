"""What a folder is recognised as, and the one message when it is nothing or two things at once."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from attnpool_backbones.cli import main
from attnpool_backbones.cli.own_data_arguments import has_masks_only
from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.digit_scenes import CLASSES
from attnpool_backbones.datasets.findings import Problem, Report
from attnpool_backbones.own_data import preparing
from attnpool_backbones.own_data.checking import check
from attnpool_backbones.own_data.folder import Folder
from attnpool_backbones.own_data.labels import Instance, LabelledImage, LabelledImages
from attnpool_backbones.own_data.reading import read_labels
from attnpool_backbones.own_data.recognition import FORMATS, open_folder, recognise
from attnpool_backbones.own_data.request import Request
from tests.own_data import scenes as written


def labels_of(root: Path, **said):
    return read_labels(Request(str(root), '', '', **said), open_folder(str(root)), False)[0]


@pytest.mark.parametrize('form', written.WRITERS)
def test_formats_are_recognised(digits, tmp_path, form):
    written.WRITERS[form](written.load_scenes(digits), tmp_path, False)
    assert recognise(open_folder(str(tmp_path))).format == form


def test_masks_and_objects_of_one_folder_are_told_apart_by_what_is_wanted(digits):
    folder = open_folder(str(digits))
    assert recognise(folder).format == 'coco'
    assert recognise(folder, for_masks=True).format == 'masks'


def test_two_formats_at_once(digits, tmp_path):
    content = written.load_scenes(digits)
    written.voc(content, tmp_path, False)
    written.labelme(content, tmp_path, False)
    with pytest.raises(UserError) as caught:
        recognise(open_folder(str(tmp_path)))
    for words in ('2 formats', 'Pascal VOC: Annotations/', 'labelme: train/', '--format voc or'):
        assert words in str(caught.value)
    assert recognise(open_folder(str(tmp_path)), 'voc').format == 'voc'


def test_a_project_of_via_gives_way_to_what_was_exported_from_it(digits, tmp_path):
    content = written.load_scenes(digits)
    written.via(content, tmp_path, False)
    written.coco(content, tmp_path, False)
    assert recognise(open_folder(str(tmp_path))).format == 'coco'
    assert recognise(open_folder(str(tmp_path)), 'via').format == 'via'
    written.labelme(content, tmp_path / 'more', False)
    for file in tmp_path.glob('*_labels.json'):
        file.unlink()
    with pytest.raises(UserError, match='2 formats'):  # either may have images of its own
        recognise(open_folder(str(tmp_path)))


def test_masks_beside_a_project_of_via_are_masks(digits, tmp_path):
    shutil.copytree(digits, tmp_path / 'all', ignore=shutil.ignore_patterns('*.json'))
    written.via(written.load_scenes(digits), tmp_path / 'all', False)
    assert has_masks_only(open_folder(str(tmp_path / 'all')), None)


def test_pictures_with_the_names_of_the_images_are_masks_where_no_outlines_are(digits, tmp_path):
    written.coco(written.load_scenes(digits), tmp_path, True)
    folder = tmp_path / 'annotations' / 'panoptic'
    folder.mkdir(parents=True)
    for image in (tmp_path / 'photos').iterdir():
        shutil.copy(image, folder)
    assert recognise(open_folder(str(tmp_path)), for_masks=True).format == 'coco'
    assert recognise(open_folder(str(tmp_path)), 'masks', for_masks=True).format == 'masks'


def test_a_file_that_cannot_be_read_does_not_hide_what_is_missing(tmp_path, monkeypatch):
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    (tmp_path / 'closed.zip').touch()

    def both_ends(folder, file):
        raise PermissionError(13, 'Permission denied', file)

    monkeypatch.setattr(Folder, 'both_ends', both_ends)
    with pytest.raises(UserError, match='no known labels.*1 .zip'):
        recognise(open_folder(str(tmp_path)))


def copy_images(digits: Path, root: Path) -> None:
    shutil.copytree(digits / 'images', root / 'images')


@pytest.mark.parametrize(
    'make, words',
    [
        (lambda root: shutil.rmtree(root / 'images'), ['no images in it', 'no files at all']),
        (lambda root: None, ['13 images, but no known labels', '13 .png', 'yolo', 'cvat']),
        (lambda root: (root / 'labels.csv').write_text('a,b'), ['1 .csv', 'no known labels']),
        (lambda root: (root / 'a.json').write_text('{}'), ['1 .json', 'no known labels']),
    ],
    ids=['no images', 'no labels', 'unknown format', 'other json'],
)
def test_nothing_to_train_on(digits, tmp_path, make, words):
    copy_images(digits, tmp_path)
    make(tmp_path)
    with pytest.raises(UserError) as caught:
        recognise(open_folder(str(tmp_path)))
    for word in words:
        assert word in str(caught.value)


def test_folder_that_is_not_there_names_its_neighbours(tmp_path):
    (tmp_path / 'photos').mkdir()
    with pytest.raises(UserError, match='no such folder; .* has: photos'):
        open_folder(str(tmp_path / 'photo'))


def test_masks_for_a_detector_name_the_heads_that_fit(digits, tmp_path):
    written.masks(digits, tmp_path, 'ids')
    with pytest.raises(UserError, match='labels for segmentation .*--head upernet'):
        recognise(open_folder(str(tmp_path)))
    written_boxes = tmp_path / 'boxes'
    written.voc(written.load_scenes(digits), written_boxes, False)
    with pytest.raises(UserError, match='labels for detection .*--head retinanet'):
        recognise(open_folder(str(written_boxes)), for_masks=True)


def test_labels_without_an_object(digits, tmp_path):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    for file in (tmp_path / 'labels').rglob('*.txt'):
        file.write_text('')
    with pytest.raises(UserError, match='no YOLO labels|not one object'):
        labels_of(tmp_path, format='yolo')


@pytest.mark.parametrize('form', ['yolo', 'coco'])
def test_test_images_without_an_object_are_left_out(digits, tmp_path, form, capsys):
    content = written.load_scenes(digits)
    root = tmp_path / 'data'
    written.WRITERS[form](content, root, False)
    (root / 'test').mkdir()
    shutil.copy(content[0].image, root / 'test/unknown.png')
    if form == 'yolo':
        description = yaml.safe_load((root / 'data.yaml').read_text())
        (root / 'data.yaml').write_text(yaml.safe_dump(description | dict(test='test')))
    else:
        listed = json.loads((root / 'val_labels.json').read_text())
        listed['images'] = [dict(id=1, file_name='unknown.png', width=96, height=64)]
        (root / 'test_labels.json').write_text(json.dumps(listed | dict(annotations=[])))
    labels = labels_of(root)
    assert {image.split for image in labels.images} == {'train', 'val'}
    assert any('1 for testing without an object' in note for note in labels.notes)
    assert labels.coco_files is None or 'test' not in labels.coco_files
    assert main(['verify', str(root)]) == 0, capsys.readouterr().out


def test_label_maps_without_an_object_are_tested(digits, tmp_path, capsys):
    content = written.load_scenes(digits)
    root = tmp_path / 'data'
    written.labelme(content, root, True)
    shutil.copytree(root / 'val', root / 'test')
    for file in (root / 'test').glob('*.json'):
        file.write_text(json.dumps(json.loads(file.read_text()) | dict(shapes=[])))
    maps, _ = read_labels(Request(str(root), '', ''), open_folder(str(root)), True)
    assert [pair.split for pair in maps.pairs].count('test') == 5
    assert 'test' not in {image.split for image in labels_of(root).images}
    assert main(['verify', str(root), '--head', 'upernet']) == 0, capsys.readouterr().out
    assert '5 of test' in capsys.readouterr().out


@pytest.mark.parametrize('split, words', [('train', 'training'), ('val', 'validation')])
def test_split_of_the_folder_without_an_object_is_told(digits, tmp_path, split, words, capsys):
    content = written.load_scenes(digits)
    for scene in content:
        if scene.split == split:
            scene.objects.clear()
    written.labelme(content, tmp_path, False)
    count = sum(scene.split == split for scene in content)
    # beside all else that is wrong
    os.truncate(tmp_path / split / f'{split}_000002.png', 900)
    assert main(['verify', str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert f'not one in the images for {words} ({count}, such as {split}/' in told
    assert 'unreadable image (1):' in told and f'{split}/{split}_000002.png: ' in told
    assert '2 problems; images looked at: 8 of train, 5 of val' in told


def test_objects_in_a_single_image_are_too_few(digits, tmp_path):
    content = written.load_scenes(digits)[:6]
    for scene in content[1:]:
        scene.objects.clear()
    written.labelme(content, tmp_path, False)
    (found,) = labels_of(tmp_path).problems
    assert found.kind == 'split without an object'


@pytest.mark.parametrize('slip', ['seveen', 'Seven', 'seven '])
def test_class_that_is_misspelt_once(digits, tmp_path, slip):
    content = written.load_scenes(digits)
    for scene in content:
        for item in scene.objects:
            item.name = 'seven'
    content[0].objects[0].name = slip
    content = content * 1
    written.labelme(content, tmp_path, False)
    labels = FORMATS['labelme'].read(open_folder(str(tmp_path)), FORMATS['labelme'].find(
        open_folder(str(tmp_path))))  # fmt: skip
    # a hundred objects of the class, so that one is rare
    copies = 1 + 100 // sum(labels.counts().values())
    labels.images = [
        replace(image, file=f'{copy}/{image.file}')
        for copy in range(copies)
        for image in labels.images
    ]
    problems = [p for p in check(labels, None).problems if p.kind == 'class that may be misspelt']
    if slip == 'seven ':
        assert not problems  # spaces around a name are nobody's intention
        return
    (problem,) = problems
    assert problem.item == 'train/train_000001.json, shape 1'
    assert f'{slip!r}' in problem.detail and "meant 'seven'" in problem.detail
    assert check(labels, ['seven', slip]).problems == []


@pytest.mark.parametrize(
    'common, rare, is_told',
    [
        ('class_0', 'class_3', False),
        ('speed limit 20', 'Speed Limit 30', False),
        ('10', '100', False),
        ('type 2b', 'type 3b', False),
        ('trailer', 'trailer2', False),
        ('speed limit 20', 'sped limit 20', True),
        ('speed limit 20', 'Speed limit 20', True),
        ('speed limit 20', 'sped limit 30', True),
        ('Traffic Light', 'traffic light', True),
    ],
)
def test_names_that_differ_in_a_number_are_not_misspelt(common, rare, is_told):
    box = 5.0, 5.0, 9.0, 9.0
    images = [
        LabelledImage(
            f'{number}.png', 96, 64, (Instance(rare if number == 0 else common, box, ''),)
        )
        for number in range(101)
    ]
    labels = LabelledImages(Path(), 'COCO', images)
    assert [p.kind for p in check(labels, None).problems] == (
        ['class that may be misspelt'] if is_told else []
    )


@pytest.mark.parametrize(
    'names, told',
    [
        (['cat', 'Cat', 'dog'], ["'Cat' (1 objects), meant 'cat' (1 objects)"]),
        (['Cat', 'Cat', 'cat'], ["'cat' (1 objects), meant 'Cat' (2 objects)"]),
        (['a', 'A', 'class_1', 'Class_2'], []),
    ],
)
def test_names_that_differ_in_capitals_are_told_once(names, told):
    box = 5.0, 5.0, 9.0, 9.0
    images = [
        LabelledImage(f'{number}.png', 96, 64, (Instance(name, box, ''),))
        for number, name in enumerate(names)
    ]
    found = [p.detail for p in check(LabelledImages(Path(), 'COCO', images), None).problems]
    assert [detail.split('?')[0] for detail in found] == told


def test_class_that_is_asked_for_and_not_there(digits, tmp_path):
    written.voc(written.load_scenes(digits), tmp_path, False)
    with pytest.raises(UserError, match=r"no object is of class 'sevn'; did you mean seven\?"):
        labels_of(tmp_path, classes=['one', 'sevn'])


def test_classes_that_are_not_asked_for_are_left_out(digits, tmp_path):
    written.voc(written.load_scenes(digits), tmp_path, False)
    counts = labels_of(tmp_path).counts()
    (first, kept), (second, _) = counts.most_common(2)
    labels = labels_of(tmp_path, classes=[second, first])
    assert labels.classes == (second, first)
    assert labels.counts() == {name: counts[name] for name in (first, second)}
    assert any('left out' in note for note in labels.notes)
    assert kept == labels.counts()[first]


@pytest.mark.parametrize(
    'form, file, old, new',
    [
        ('labelme', 'train/train_000001.json', '"rectangle"', '"point"'),
        ('labelme', 'train/train_000001.json', '"points": [[', '"points": [[9999, 1], ['),
        ('cvat', 'annotations.xml', '<box ', '<skeleton '),
        ('cvat', 'annotations.xml', 'xtl="', 'xtl="x'),
        ('voc', 'Annotations/train_000001.xml', '<xmin>', '<xmin>x'),
        ('voc', 'Annotations/train_000001.xml', '<xmin>', '<xmin>9999'),
        ('yolo', 'labels/train/train_000001.txt', ' 0.', ' 90.'),
        ('yolo', 'labels/train/train_000001.txt', ' 0.', ' x0.'),
        ('coco', 'train_labels.json', '"bbox": [', '"bbox": ["x", '),
        ('coco', 'train_labels.json', '"bbox": [', '"bbox": [9999, 1, 9, 9], "_": ['),
    ],
)
def test_faults_of_classes_that_are_not_asked_for_are_left_out(
    digits, tmp_path, form, file, old, new
):
    content = written.load_scenes(digits)
    first = content[0].objects[0].name
    asked = sorted({item.name for scene in content for item in scene.objects} - {first})
    written.WRITERS[form](content, tmp_path, False)
    written.replaced(tmp_path / file, old, new)
    assert [p.kind for p in labels_of(tmp_path, format=form).problems]
    labels = labels_of(tmp_path, format=form, classes=asked)
    assert labels.problems == [] and labels.classes == tuple(asked)
    with_fault = labels_of(tmp_path, format=form, classes=[first, *asked])
    assert len(with_fault.problems) == 1


def test_boxes_of_no_size_and_repeated_ones_are_left_out(digits, tmp_path):
    content = written.load_scenes(digits)
    objects = content[0].objects
    objects.append(objects[0])
    objects.append(written.Object('one', [5, 5, 0, 9], []))
    written.coco(content, tmp_path, False)
    labels = labels_of(tmp_path)
    assert labels.problems == []
    assert sum('left out' in note for note in labels.notes) == 2
    assert len(labels.images[0].instances) == len(objects) - 2


@pytest.mark.parametrize('form', ['coco', 'labelme'])
def test_objects_that_cannot_be_learnt_are_left_out(digits, tmp_path, form, capsys):
    content = written.load_scenes(digits)
    objects = content[0].objects
    kept = len(objects)
    objects += [
        objects[0],
        outlined(5, 5, 5, 14, 5, 9),
        outlined(5, 5, 5.5, 14, 5, 9),
        outlined(5, 5, 15, 15, 5.1, 5),
    ]
    written.WRITERS[form](content, tmp_path, True)
    labels = labels_of(tmp_path)
    assert labels.problems == []
    assert len(labels.images[0].instances) == kept
    kinds = 'object labelled twice', 'box of no area', 'box below one pixel', 'object of no pixel'
    for number, kind in enumerate(kinds, kept + 1):
        (note,) = (note for note in labels.notes if note.startswith(f'{kind}, left out: '))
        assert (
            f'annotation {number} of image' if form == 'coco' else f'000001.json, shape {number}'
        ) in note
    assert main(['verify', str(tmp_path)]) == 0, capsys.readouterr().out


def outlined(*outline: float) -> written.Object:
    xs, ys = outline[0::2], outline[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return written.Object('one', box, list(outline))


def test_boxes_in_shares_of_the_image_are_a_problem(digits, tmp_path):
    content = written.load_scenes(digits)
    content[0].objects.append(written.Object('one', [0.25, 0.5, 0.2, 0.1], []))
    written.labelme(content, tmp_path, False)
    (found,) = labels_of(tmp_path).problems
    assert found.kind == 'box below one pixel' and 'shares of the image?' in found.detail


def test_box_that_only_touches_its_image_is_outside(digits, tmp_path):
    content = written.load_scenes(digits)
    content[0].objects.append(written.Object('one', [content[0].width, 5, 1, 9], []))
    written.labelme(content, tmp_path, False)
    (found,) = labels_of(tmp_path).problems
    assert found.kind == 'box outside the image'


def test_findings_of_a_converted_file_name_the_label(digits, tmp_path, monkeypatch, capsys):
    written.labelme(written.load_scenes(digits), tmp_path, False)
    found = Problem('val', 'mask that training ignores', 'annotation 1 of image 1', 'odd')
    report = Report({'val': 1}, (found,))
    monkeypatch.setattr(preparing, 'verify', lambda *_, **__: report)
    assert main(['verify', str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert 'val/val_000001.json, shape 1: odd' in text and 'annotation' not in text


def test_area_that_a_tool_did_not_know_is_measured(digits, tmp_path):
    written.coco(written.load_scenes(digits), tmp_path, False)
    change(tmp_path / 'train_labels.json', lambda c: [a.update(area=0) for a in c['annotations']])
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.coco_files is None
    assert all(i.area == i.box[2] * i.box[3] for i in labels.instances())


def test_coco_files_of_both_splits_are_taken_as_they_are(digits):
    labels = labels_of(digits, format='coco')
    assert labels.coco_files == {
        'train': ('annotations/instances_train.json', 'images/training/'),
        'val': ('annotations/instances_val.json', 'images/validation/'),
    }
    assert labels_of(digits, format='coco', classes=['one']).coco_files is None


Content = dict[str, list[dict[str, Any]]]


def numbered(content: Content, numbers: Callable[[int], Any]) -> None:
    for index, annotation in enumerate(content['annotations']):
        annotation['id'] = numbers(index)


def without(content: Content, name: str, listed: bool) -> None:
    """Takes a class out of a file: its objects, and its category unless that is to stay listed."""
    number = next(c['id'] for c in content['categories'] if c['name'] == name)
    content['annotations'] = [a for a in content['annotations'] if a['category_id'] != number]
    content['categories'] = [c for c in content['categories'] if listed or c['id'] != number]


# file, and what is done to it that mmdet cannot train on or score as it is
UNFIT: dict[str, tuple[str, Callable[[Content], object]]] = {
    'ids from 0': ('train', lambda c: numbered(c, lambda index: index)),
    'ids from 0 in val': ('val', lambda c: numbered(c, lambda index: index)),
    'ids of text': ('val', lambda c: numbered(c, lambda index: f'a{index}')),
    'repeated ids': ('val', lambda c: numbered(c, lambda index: 1 + index // 2)),
    'no flag of a crowd': ('val', lambda c: c['annotations'][0].update(iscrowd=None)),
    'another order': ('val', lambda c: c['categories'].reverse()),
    'class that is not listed': ('val', lambda c: without(c, 'three', False)),
    'class that only val lists': ('train', lambda c: without(c, 'three', False)),
    'box of no size': ('train', lambda c: c['annotations'][0].update(bbox=[5, 5, 0, 9])),
    'object listed twice': ('train', lambda c: c['annotations'].append(
        dict(c['annotations'][0], id=9999))),
}  # fmt: skip


def change(file: Path, work: Callable[[Content], object], encoding: str = 'utf-8') -> None:
    content = json.loads(file.read_text())
    work(content)
    file.write_text(json.dumps(content), encoding=encoding)


@pytest.mark.parametrize('case', [*UNFIT, 'byte order mark'])
def test_coco_files_that_do_not_fit_are_converted(digits, tmp_path, case, capsys):
    written.coco(written.load_scenes(digits), tmp_path, False)
    split, work = UNFIT.get(case, ('val', lambda content: None))
    encoding = 'utf-8-sig' if case == 'byte order mark' else 'utf-8'
    assert labels_of(tmp_path).coco_files is not None
    change(tmp_path / f'{split}_labels.json', work, encoding)
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.coco_files is None
    assert set(labels.classes) == set(CLASSES)
    if 'list' not in case:
        assert labels.classes == CLASSES
    assert main(['verify', str(tmp_path)]) == 0, capsys.readouterr().out


def test_classes_are_in_the_order_of_the_files(digits, tmp_path, capsys):
    """Also where a file that is read first has no object of one of them."""
    written.coco(written.load_scenes(digits), tmp_path, False)
    change(tmp_path / 'train_labels.json', lambda content: without(content, 'three', True))
    labels = labels_of(tmp_path)
    assert labels.classes == CLASSES and labels.coco_files is not None
    change(tmp_path / 'val_labels.json', lambda content: without(content, 'three', True))
    assert 'three' not in labels_of(tmp_path).classes
    assert main(['verify', str(tmp_path)]) == 0, capsys.readouterr().out


def each(content: Content, **fields: Any) -> None:
    for annotation in content['annotations']:
        annotation.update(fields)


def as_masks(content: Content, **fields: Any) -> None:
    """Gives each object run lengths, and marks it as a crowd."""
    for annotation in content['annotations']:
        left, top, width, height = annotation['bbox']
        mask = np.zeros((64, 96), np.uint8, order='F')
        mask[top : top + height, left : left + width] = 1
        runs = written.coco_mask.encode(mask)
        annotation['segmentation'] = runs | dict(counts=runs['counts'].decode())
    each(content, iscrowd=1, **fields)


@pytest.mark.parametrize('attributes', [dict(occluded=False), dict(source='x'), None])
def test_masks_that_cvat_marks_as_crowds_are_objects(digits, tmp_path, attributes):
    written.coco(written.load_scenes(digits), tmp_path, False)
    said = {} if attributes is None else dict(attributes=attributes)
    for split in ('train', 'val'):
        change(tmp_path / f'{split}_labels.json', lambda content: as_masks(content, **said))
    labels = labels_of(tmp_path)
    if said == dict(attributes=dict(occluded=False)):
        assert labels.problems == [] and labels.coco_files is None and labels.has_masks
        assert not any(instance.is_crowd for instance in labels.instances())
        assert sum('masks are objects' in note for note in labels.notes) == 2
        return
    assert all(instance.is_crowd for instance in labels.instances())
    found = [(p.kind, p.item) for p in labels.problems]
    assert found == [('split without an object', 'train'), ('split without an object', 'val')]
    assert all('that are crowds (iscrowd) or difficult' in p.detail for p in labels.problems)


def test_masks_that_are_no_crowds_say_that_the_others_are(digits, tmp_path):
    written.coco(written.load_scenes(digits), tmp_path, False)
    file = tmp_path / 'train_labels.json'
    change(file, lambda content: as_masks(content, attributes=dict(occluded=False)))
    change(file, lambda content: content['annotations'][0].update(iscrowd=0))
    crowds = [instance.is_crowd for instance in labels_of(tmp_path).instances()]
    assert not crowds[0] and any(crowds)


def test_crowds_are_told(digits, tmp_path):
    written.coco(written.load_scenes(digits), tmp_path, False)
    change(tmp_path / 'train_labels.json', lambda c: c['annotations'][0].update(iscrowd=1))
    labels = labels_of(tmp_path)
    count = labels.counts().total()
    assert f'1 of {count} objects are crowds (iscrowd) or difficult: neither learnt nor scored' in (
        labels.notes
    )


def test_split_of_difficult_objects_alone_is_told(digits, tmp_path):
    written.voc(written.load_scenes(digits), tmp_path, False)
    for file in (tmp_path / 'Annotations').glob('val_*'):
        text = file.read_text().replace('<bndbox>', '<difficult>1</difficult><bndbox>')
        file.write_text(text)
    (found,) = labels_of(tmp_path).problems
    assert (found.kind, found.item) == ('split without an object', 'val')


@pytest.mark.parametrize(
    'rotation, segmentation, is_told',
    [(30.0, None, True), (30.0, [], True), (-360, [], False), (0.0, [], False),
     ('x', [], False), (30.0, [[1, 2, 9, 2, 9, 9]], False)],
)  # fmt: skip
def test_turned_box_of_coco_is_told(digits, tmp_path, rotation, segmentation, is_told):
    written.coco(written.load_scenes(digits), tmp_path, False)
    fields = dict(attributes=dict(rotation=rotation))
    if segmentation is not None:
        fields['segmentation'] = segmentation
    change(tmp_path / 'train_labels.json', lambda c: c['annotations'][0].update(fields))
    problems = labels_of(tmp_path).problems
    assert [p.kind for p in problems] == ['malformed label'] * is_told
    assert all('turned by 30 degrees; draw it as a polygon' in p.detail for p in problems)


def captions(content: Content) -> None:
    del content['categories']
    content['annotations'] = [dict(id=1, image_id=5, caption='a digit')]


def panoptic(content: Content) -> None:
    segments = [dict(id=1, category_id=11)]
    content['annotations'] = [dict(image_id=5, file_name='1.png', segments_info=segments)]


def of_datumaro(content: Content) -> None:
    content['items'] = [dict(id='1', annotations=[dict(id=1, bbox=[1, 2, 3, 4])])]
    del content['images'], content['annotations']


@pytest.mark.parametrize(
    'work', [captions, panoptic, of_datumaro, lambda content: content.pop('annotations')]
)
def test_files_of_something_else_are_left_out(digits, tmp_path, work):
    written.coco(written.load_scenes(digits), tmp_path, False)
    before = labels_of(tmp_path)
    shutil.copy(tmp_path / 'train_labels.json', tmp_path / 'other_train.json')
    change(tmp_path / 'other_train.json', work)
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.coco_files == before.coco_files is not None
    (note,) = (note for note in labels.notes if note not in before.notes)
    assert note.startswith('file without objects, left out: other_train.json (')


@pytest.mark.parametrize('work, is_told', [(captions, False), (panoptic, False), (None, True)])
def test_labels_beside_files_of_something_else(digits, tmp_path, work, is_told):
    content = written.load_scenes(digits)
    written.voc(content, tmp_path, False)
    written.coco(content, tmp_path / 'other', False)
    for file in (tmp_path / 'other').glob('*.json'):
        if work is None:
            file.write_text(file.read_text()[:-9])  # which may be labels
        else:
            change(file, work)
    if not is_told:
        assert recognise(open_folder(str(tmp_path))).format == 'voc'
        return
    with pytest.raises(UserError, match='labels of 2 formats'):
        recognise(open_folder(str(tmp_path)))


def test_blanks_around_names_of_categories_are_taken_away(digits, tmp_path, capsys):
    written.coco(written.load_scenes(digits), tmp_path, False)
    before = labels_of(tmp_path)
    change(
        tmp_path / 'val_labels.json',
        lambda content: [
            entry.update(name=f' {entry["name"]} ') for entry in content['categories']
        ],
    )
    labels = labels_of(tmp_path)
    assert labels.images == before.images and labels.classes == before.classes
    assert labels.coco_files is None
    assert main(['verify', str(tmp_path)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize('width', ['96', None])
def test_annotations_of_a_malformed_image_have_one(digits, tmp_path, width):
    written.coco(written.load_scenes(digits), tmp_path, True)
    change(tmp_path / 'train_labels.json', lambda c: c['images'][0].update(width=width))
    (found,) = labels_of(tmp_path).problems
    assert found.kind == 'malformed entry' and found.item == 'train_labels.json, images[0]'


@pytest.mark.parametrize('crowd', ['0', 2, [0]])
def test_a_mark_of_crowds_that_is_no_flag_is_told(digits, tmp_path, crowd):
    written.coco(written.load_scenes(digits), tmp_path, False)
    change(tmp_path / 'train_labels.json', lambda c: c['annotations'][0].update(iscrowd=crowd))
    (found,) = labels_of(tmp_path).problems
    assert found.kind == 'malformed annotation entry'
    assert found.detail == f'iscrowd {crowd!r}, not 0 or 1'


def test_folder_of_files_of_something_else(digits, tmp_path):
    written.coco(written.load_scenes(digits), tmp_path, False)
    for split in ('train', 'val'):
        change(tmp_path / f'{split}_labels.json', captions)
    with pytest.raises(UserError, match=r'(?s)file without objects .*train_labels\.json: without '):
        labels_of(tmp_path)


def test_labels_without_categories_are_damaged(digits, tmp_path):
    written.coco(written.load_scenes(digits), tmp_path, False)
    change(tmp_path / 'val_labels.json', lambda content: content.pop('categories'))
    (found,) = labels_of(tmp_path).problems
    assert found.kind == 'damaged label file' and found.detail == 'without categories'


def test_two_files_of_the_same_images_are_told_once(digits, tmp_path):
    written.coco(written.load_scenes(digits), tmp_path, False)
    shutil.copy(tmp_path / 'train_labels.json', tmp_path / 'person_keypoints_train.json')
    (found,) = labels_of(tmp_path).problems
    assert found.kind == 'two files label the same images'
    assert found.item == 'person_keypoints_train.json, train_labels.json'
    assert found.detail.startswith('8 images, such as photos/train_000001.png')


def test_parts_of_an_outline_that_have_no_area_are_left_out(digits, tmp_path):
    written.coco(written.load_scenes(digits), tmp_path, True)
    before = labels_of(tmp_path)
    change(
        tmp_path / 'train_labels.json',
        lambda c: c['annotations'][0]['segmentation'].append([1, 2, 3, 4]),
    )
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.images == before.images
    assert labels.coco_files is None
    assert any('fewer than 3 corners' in note and 'of 1 objects' in note for note in labels.notes)


PROGRAMS = [
    ('train/_annotations.createml.json', '[{"annotations": []}]', 'Create ML, from Roboflow'),
    ('_annotations.csv', 'filename,width,height,class,xmin,ymin,xmax,ymax\n', 'TensorFlow'),
    ('a.csv', 'filename,region_shape_attributes\n', 'a table of VIA, .* export JSON'),
    ('ds0/ann/1.png.json', '{"objects": [{"classTitle": "one"}]}', 'Supervisely'),
    ('tasks.json', '[{"from_name": "label", "rectanglelabels": ["one"]}]', 'Label Studio'),
    ('samples.json', '{"samples": [{"_media_type": "image"}]}', 'FiftyOne'),
    ('train.csv', '\ufeffimage_id,width,height,bbox\n', 'a table of boxes'),
    ('train.csv', 'ImageId,EncodedPixels\n', 'a table of run lengths'),
    ('boxes.csv', 'one,3,4,5,6,train_1.png,96,64\n', 'a table of makesense'),
    ('metadata.jsonl', '{"file_name": "1.png"}', 'Hugging Face'),
    ('training/label_2/000001.txt', 'Car 0 0 0 1 2 3 4 5 6 7 8 9 0 1', 'KITTI'),
    ('a.csv', 'ImageID,Source,LabelName,Confidence\n', 'Open Images'),
    ('1.json', '{"annotations": [{"predicted_iou": 0.9}]}', 'Segment Anything'),
    ('photos/1.heic', '', 'of a kind that is not read; convert it'),
]


@pytest.mark.parametrize('file, content, words', PROGRAMS, ids=[row[0] for row in PROGRAMS])
def test_labels_of_other_programs_are_named(digits, tmp_path, file, content, words):
    copy_images(digits, tmp_path)
    written.write(tmp_path / file, content)
    with pytest.raises(UserError, match=rf'(?m)^{file}\b.*{words}'):
        recognise(open_folder(str(tmp_path)))


def test_other_labels_without_an_image_are_named(tmp_path):
    written.write(tmp_path / 'train/cells.tfrecord', '')
    with pytest.raises(
        UserError, match=r'(?s)no images in it.*cells\.tfrecord: TFRecord, not read; export COCO'
    ):
        open_folder(str(tmp_path))


def test_objects_that_are_all_wrong_are_told_alone(digits, tmp_path, capsys):
    """As LabelMe's XML, which has outlines in the place of boxes."""
    written.voc(written.load_scenes(digits), tmp_path, False)
    count = 0
    for file in (tmp_path / 'Annotations').iterdir():
        text = file.read_text()
        count += text.count('<bndbox>')
        file.write_text(text.replace('bndbox', 'polygon'))
    assert main(['verify', str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert f': {count} things are wrong' in told and f'malformed label ({count})' in told
    assert "as MIT's LabelMe writes it" in told


def test_ids_of_images_that_are_text_in_one_place_are_told(digits, tmp_path):
    """As some versions of VIA write them."""
    written.coco(written.load_scenes(digits), tmp_path, False)
    change(tmp_path / 'train_labels.json', lambda c: c['annotations'][0].update(image_id='5'))
    (found,) = labels_of(tmp_path).problems
    assert found.detail == 'no image has that id, but one has 5: numbers and text differ'


def test_classes_of_one_split_alone_are_told(digits, tmp_path):
    content = written.load_scenes(digits)
    for scene in content:
        for item in scene.objects:
            item.name = 'one'
    content[0].objects[0].name = 'only trained on'
    content[-1].objects[0].name = 'only scored'
    written.labelme(content, tmp_path, False)
    notes = [note for note in labels_of(tmp_path).notes if 'without an object' in note]
    assert notes == [
        '1 classes without an object for training, which cannot be learnt (only scored)',
        '1 classes without an object for validation (only trained on)',
    ]
    labels = labels_of(tmp_path, classes=['one'])
    assert not any('without an object' in note for note in labels.notes)
