"""Labels that are broken in many ways end with one list of what is wrong and where."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmdet')

from attnpool_backbones.cli import main
from tests.own_data import scenes as written
from tests.own_data.scenes import replaced

TRAIN = 'train_labels.json'
MODEL = ['--backbone', 'caformer-nano', '--head', 'faster-rcnn', '--no-forecast']

Content = dict[str, list[Any]]


def image(content: Content, index: int, **changes: Any) -> None:
    content['images'][index].update(changes)


def annotation(content: Content, index: int, **changes: Any) -> None:
    content['annotations'][index].update(changes)


def box(content: Content, index: int, *edges: float) -> None:
    annotation(content, index, bbox=list(edges))


def short_runs(content: Content) -> dict:
    # the first scene is 96x64
    return dict(size=[64, 96], counts=[10, 10])


# what is wrong, where it is said to be, how it is made: on the file's content and its folder
FAULTS: list[tuple[str, str, Callable[[Content, Path], object]]] = [
    ('missing image', 'gone.png', lambda c, r: image(c, 7, file_name='gone.png')),
    ('unreadable image', 'train_000002.png',
     lambda c, r: (r / 'photos/train_000002.png').write_text('no image')),
    ('unreadable image', 'train_000003.png',
     lambda c, r: os.truncate(r / 'photos/train_000003.png', 3000)),
    ('image of another size than annotated', 'train_000004.png',
     lambda c, r: Image.new('RGB', (50, 40)).save(r / 'photos/train_000004.png')),
    ('image listed more than once', 'train_000005.png',
     lambda c, r: c['images'].append(dict(c['images'][4], id=99))),
    ('id used more than once', 'images[9]',
     lambda c, r: c['images'].append(dict(c['images'][5], file_name='train_000006.png'))),
    ('malformed entry', 'images[10]', lambda c, r: c['images'].append(dict(id=100))),
    ('malformed entry', 'images[11]', lambda c, r: c['images'].append('train_1.png')),
    ('malformed entry', 'categories[10]', lambda c, r: c['categories'].append(dict(id=50))),
    ('id used more than once', 'categories[11]',
     lambda c, r: c['categories'].append(dict(c['categories'][0], name='nought'))),
    ('wrong class id', 'annotation 1 of', lambda c, r: annotation(c, 0, category_id=77)),
    ('annotation without an image', 'annotation 2 of', lambda c, r: annotation(c, 1, image_id=777)),
    ('malformed box', 'annotation 3 of', lambda c, r: c['annotations'][2].pop('bbox')),
    ('malformed box', 'annotation 4 of', lambda c, r: annotation(c, 3, bbox=[1, 2, 3])),
    ('malformed box', 'annotation 5 of', lambda c, r: annotation(c, 4, bbox=[1, 2, 3, 'x'])),
    ('box outside the image', 'annotation 6 of', lambda c, r: box(c, 5, 90, 9, 9, 9)),
    ('box with swapped edges', 'annotation 7 of', lambda c, r: box(c, 6, 9, 9, -3, 4)),
    ('polygon that is ignored', 'annotation 8 of',
     lambda c, r: annotation(c, 7, segmentation=[[1, 2, 3, 4, 5]])),
    ('malformed polygon', 'annotation 9 of',
     lambda c, r: annotation(c, 8, segmentation=[['a'] * 6])),
    ('mask of another size than its image', 'annotation 10 of',
     lambda c, r: annotation(c, 9, segmentation=dict(size=[5, 5], counts=[25]))),
    ('malformed mask', 'annotation 11 of',
     lambda c, r: annotation(c, 10, segmentation=short_runs(c))),
    ('malformed annotation entry', 'annotation 12 of',
     lambda c, r: annotation(c, 11, category_id=[1])),
    ('malformed annotation entry', 'annotations[', lambda c, r: c['annotations'].append(7)),
]  # fmt: skip


@pytest.fixture
def folder(digits, tmp_path, monkeypatch):
    root = tmp_path / 'digits'
    written.coco(written.load_scenes(digits), root, outlines=True)
    monkeypatch.chdir(tmp_path)
    return root


def test_everything_that_is_wrong_is_listed_before_training(folder, capsys):
    content = json.loads((folder / TRAIN).read_text())
    assert len(content['annotations']) >= 12
    for _, _, damage in FAULTS:
        damage(content, folder)
    (folder / TRAIN).write_text(json.dumps(content))
    assert main(['train', str(folder), *MODEL]) == 2
    message = capsys.readouterr().err
    listed: dict[str, list[str]] = {}
    kind = ''
    for line in message.splitlines()[1:]:
        if line.startswith('  '):
            listed[kind].append(line)
        else:
            kind = line.rpartition(' (')[0]
            listed[kind] = []
    for kind, place, _ in FAULTS:
        assert any(place in line for line in listed.get(kind, [])), (kind, place, message)
    # nothing else, nothing twice: a fault may hide what depends on it, never add to it
    assert sum(map(len, listed.values())) == len(FAULTS), message
    assert f'{len(FAULTS)} things are wrong' in message
    assert not list(Path('work_dirs').rglob('*.pth'))
    assert main(['verify', str(folder)]) == 1
    assert f'{len(FAULTS)} things are wrong' in capsys.readouterr().out


def test_damaged_image_of_outlines_is_told_of_a_segmentor(folder, capsys):
    (folder / 'photos/train_000002.png').write_text('no image')
    model = ['--backbone', 'caformer-nano', '--head', 'upernet', '--no-forecast']
    assert main(['train', str(folder), *model]) == 2
    message = capsys.readouterr().err
    assert 'unreadable image (1):' in message and 'train_000002.png' in message


def test_whole_labels_pass(folder, capsys):
    assert main(['verify', str(folder)]) == 0
    assert 'nothing is wrong' in capsys.readouterr().out


def first_edge(path: Path, name: str, value: str) -> None:
    before, _, rest = path.read_text().partition(f'<{name}>')
    path.write_text(f'{before}<{name}>{value}{rest[rest.index("<") :]}')


XML = 'Annotations/train_000001.xml'
TEXT = 'labels/train/train_000001.txt'
SHAPES = 'train/train_000001.json'

# format, what is wrong, where, how it is made
OTHERS: list[tuple[str, str, str, Callable[[Path], object]]] = [
    ('voc', 'damaged label file', XML, lambda r: os.truncate(r / XML, 200)),
    ('voc', 'damaged label file', XML, lambda r: declared(r / XML, 'gb2312')),
    ('voc', 'damaged label file', XML, lambda r: declared(r / XML, 'shift_jis')),
    ('voc', 'damaged label file', XML, lambda r: declared(r / XML, 'no-such-code')),
    ('voc', 'label without an image', XML,
     lambda r: (r / 'JPEGImages/train_000001.png').unlink()),
    ('voc', 'malformed label', f'{XML}, object 1', lambda r: first_edge(r / XML, 'xmin', 'left')),
    ('voc', 'malformed label', f'{XML}, object 1', lambda r: first_edge(r / XML, 'xmax', 'inf')),
    ('voc', 'box outside the image', f'{XML}, object 1',
     lambda r: first_edge(r / XML, 'xmax', '200')),
    ('voc', 'box with swapped edges', f'{XML}, object 1',
     lambda r: (first_edge(r / XML, 'xmin', '50'), first_edge(r / XML, 'xmax', '40'))),
    ('voc', 'object without a class', f'{XML}, object 1', lambda r: first_name(r / XML)),
    ('yolo', 'wrong class id', f'{TEXT}, line 1',
     lambda r: (r / TEXT).write_text('10 0.5 0.5 0.2 0.2')),
    ('yolo', 'wrong class id', f'{TEXT}, line 1',
     lambda r: (r / TEXT).write_text('-1 0.5 0.5 0.2 0.2')),
    ('yolo', 'malformed label', f'{TEXT}, line 2',
     lambda r: (r / TEXT).write_text('1 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2')),
    ('yolo', 'malformed label', f'{TEXT}, line 1', lambda r: (r / TEXT).write_text('1 50 50 9 9')),
    ('yolo', 'malformed label', f'{TEXT}, line 1',
     lambda r: (r / TEXT).write_text('one 0.5 0.5 0.2 0.2')),
    ('yolo', 'malformed label', f'{TEXT}, line 1',
     lambda r: (r / TEXT).write_text('1 nan 0.5 0.2 0.2')),
    ('yolo', 'label without an image', TEXT,
     lambda r: (r / 'images/train/train_000001.png').unlink()),
    ('yolo', 'unreadable image', 'images/train/train_000001.png',
     lambda r: (r / 'images/train/train_000001.png').write_text('')),
    ('labelme', 'damaged label file', SHAPES, lambda r: os.truncate(r / SHAPES, 120)),
    ('labelme', 'malformed label', f'{SHAPES}, shape 1',
     lambda r: replaced(r / SHAPES, '"rectangle"', '"line"')),
    ('labelme', 'malformed label', f'{SHAPES}, shape 1',
     lambda r: replaced(r / SHAPES, '"rectangle"', '"polygon"')),
    ('labelme', 'image of another size than annotated', 'train/train_000001.png',
     lambda r: replaced(r / SHAPES, '"imageWidth": 96', '"imageWidth": 97')),
    ('via', 'damaged label file', 'via_export.json',
     lambda r: os.truncate(r / 'via_export.json', 2000)),
    ('via', 'damaged label file', 'via_export.json',
     lambda r: replaced(r / 'via_export.json', '"filename"', '"file"')),
    ('via', 'missing image', 'nowhere.png',
     lambda r: replaced(r / 'via_export.json', '": "train_000001.png"', '": "nowhere.png"')),
    ('via', 'unreadable image', 'train/train_000001.png',
     lambda r: (r / 'train/train_000001.png').write_text('')),
    ('via', 'malformed label', 'via_export.json, train_000001.png, region 1',
     lambda r: replaced(r / 'via_export.json', '"rect"', '"polyline"')),
    ('via', 'malformed label', 'via_export.json, train_000001.png, region 1',
     lambda r: replaced(r / 'via_export.json', '"width"', '"wide"')),
    ('via', 'malformed label', 'via_export.json, train_000001.png, region 1',
     lambda r: replaced(r / 'via_export.json', '"x": ', '"x": NaN, "_": ')),
    ('via', 'object without a class', 'via_export.json, train_000001.png, region 1',
     lambda r: replaced(r / 'via_export.json', '"region_attributes": {"digit"',
                        '"region_attributes": {"digit": "", "_"')),
    ('cvat', 'damaged label file', 'annotations.xml',
     lambda r: os.truncate(r / 'annotations.xml', 2000)),
    ('cvat', 'damaged label file', 'annotations.xml',
     lambda r: declared(r / 'annotations.xml', 'gbk')),
    ('cvat', 'label without an image', 'annotations.xml, image nowhere.png',
     lambda r: replaced(r / 'annotations.xml', 'name="train_000001.png"', 'name="nowhere.png"')),
    ('cvat', 'malformed label', 'annotations.xml, image train_000001.png, shape 1',
     lambda r: replaced(r / 'annotations.xml', 'xtl="', 'xtl="left')),
    ('cvat', 'shape of another kind', 'annotations.xml, image train_000001.png, shape 1',
     lambda r: replaced(r / 'annotations.xml', '<box ', '<points ')),
    ('cvat_video', 'frame without an image', 'annotations.xml, frame 0',
     lambda r: (r / 'train/frame_000000.png').unlink()),
    ('cvat_video', 'frame with several images', 'annotations.xml, frame 0',
     lambda r: Image.new('RGB', (9, 9)).save(r / 'train/other_0.png')),
    ('cvat_video', 'unreadable image', 'train/frame_000000.png',
     lambda r: (r / 'train/frame_000000.png').write_text('')),
    ('cvat_video', 'malformed label', 'annotations.xml, track 0, frame 0',
     lambda r: replaced(r / 'annotations.xml', 'xtl="', 'xtl="left')),
    ('cvat_video', 'malformed label', 'annotations.xml, track 0, frame x',
     lambda r: replaced(r / 'annotations.xml', 'frame="0"', 'frame="x"')),
    ('cvat_video', 'labels of several videos', 'annotations.xml',
     lambda r: [replaced(r / 'annotations.xml', f'id="{n}"', f'id="{n}" task_id="{n}"')
                for n in range(2)]),
]  # fmt: skip


def declared(path: Path, encoding: str) -> None:
    """Says an encoding, and breaks the file in all of them."""
    head = f'<?xml version="1.0" encoding="{encoding}"?>\n'
    path.write_bytes(head.encode() + path.read_bytes()[:-10] + b'\xff\xff</a>')


def first_name(path: Path) -> None:
    before, _, rest = path.read_text().partition('<name>')
    path.write_text(f'{before}<name>{rest[rest.index("<") :]}')


@pytest.mark.parametrize(
    'form, kind, place, damage',
    OTHERS,
    ids=[' '.join(row[:2]) for row in OTHERS],
)
def test_every_format_tells_file_and_place(digits, tmp_path, form, kind, place, damage):
    from attnpool_backbones.own_data.label_problems import BrokenLabels
    from attnpool_backbones.own_data.reading import read_labels
    from attnpool_backbones.own_data.recognition import open_folder
    from attnpool_backbones.own_data.request import Request

    write = written.cvat_video if form == 'cvat_video' else written.WRITERS[form]
    write(written.load_scenes(digits), tmp_path, False)
    damage(tmp_path)
    folder = open_folder(str(tmp_path))
    try:
        labels, _ = read_labels(
            Request(str(tmp_path), '', '', format=form.partition('_')[0]), folder, False
        )
        problems = labels.problems
    except BrokenLabels as error:
        problems = error.problems
    assert any(p.kind == kind and p.item.startswith(place) for p in problems), problems


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.uint8)


MASK = 'training/masks/000001.png'


@pytest.mark.parametrize(
    'kind, place, damage',
    [
        ('mask with labels of no class', MASK, lambda p: save(p, np.full((64, 96), 40, np.uint8))),
        ('mask of another size than its image', MASK, lambda p: save(p, zeros(9, 9))),
        ('unreadable image or mask', MASK, lambda p: p.write_text('nothing')),
        ('mask without an image', 'training/masks/extra.png',
         lambda p: save(p.with_name('extra.png'), zeros(64, 96))),
        ('mask with mixed colours', MASK,
         lambda p: save(p, np.random.randint(0, 255, (64, 96, 3), np.uint8))),
        ('masks of two kinds', '',
         lambda p: save(p, np.full((64, 96, 3), (9, 80, 7), np.uint8))),
    ],
)  # fmt: skip
def test_masks_tell_file(digits, tmp_path, kind, place, damage):
    from attnpool_backbones.own_data.reading import read_labels
    from attnpool_backbones.own_data.recognition import open_folder
    from attnpool_backbones.own_data.request import Request

    written.masks(digits, tmp_path, 'ids')
    damage(tmp_path / MASK)
    labels, _ = read_labels(Request(str(tmp_path), '', ''), open_folder(str(tmp_path)), True)
    assert [p.kind for p in labels.problems] == [kind]
    assert place in labels.problems[0].item


def save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


def test_all_cases_of_a_kind_are_there_to_see(folder, capsys):
    content = json.loads((folder / TRAIN).read_text())
    count = len(content['annotations'])
    for number in range(count):
        box(content, number, 90, 9, 9, 9)
    (folder / TRAIN).write_text(json.dumps(content))

    def listed(*words: str) -> int:
        assert main(['verify', str(folder), *words]) == 1
        told = capsys.readouterr().out
        assert f'box outside the image ({count}):' in told
        return told.count(', annotation ')

    assert count > 20
    assert listed() == 20 and listed('--examples', '2') == 2
    assert listed('--examples', '1000', '--json', 'all.json') == count
    report = json.loads(Path('all.json').read_text())
    assert report['counts'] == {'box outside the image': count}
    assert len(report['problems']) == count and report['images'] == dict(train=8, val=5)


def test_options_of_the_config_are_those_of_the_check(folder, capsys):
    assert main(['verify', str(folder), '--cfg-options', 'max_pixels=6143']) == 1  # 96 x 64 - 1
    assert 'image too large (13):' in capsys.readouterr().out
    assert main(['train', str(folder), *MODEL, '--cfg-options', 'max_pixels=6143']) == 2
    assert main(['verify', str(folder), '--json', 'sound.json']) == 0
    assert json.loads(Path('sound.json').read_text())['problems'] == []
