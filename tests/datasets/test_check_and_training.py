"""The check of a data set and a training agree: what one loads, drops or refuses, the other does.

Each case was a silent difference that somebody met.
"""

import codecs
import json
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS as DET_DATASETS
from mmseg.registry import DATASETS as SEG_DATASETS

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.verification import verify

CLASSES = ('cat', 'dog')
LOAD = dict(type='LoadImageFromFile')
MASKS = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
STEPS = [LOAD, MASKS, dict(type='Resize', scale=(64, 64)), dict(type='PackDetInputs')]


def square(number: int, image: int, label: int, x: float = 5) -> dict:
    """An annotation of 20 x 20 pixels."""
    corners = [x, 5, x + 20, 5, x + 20, 25, x, 25]
    return dict(id=number, image_id=image, category_id=label, bbox=[x, 5, 20, 20], area=400,
                iscrowd=0, segmentation=[corners])  # fmt: skip


def coco(size: tuple[int, int] = (64, 48)) -> dict:
    """A file of two images, two categories and an annotation of each in each."""
    images = [dict(id=i, file_name=f'{i}.png', width=size[0], height=size[1]) for i in (1, 2)]
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    annotations = [square(i + 1, i // 2 + 1, i % 2 + 1, 5 + 10 * (i % 2)) for i in range(4)]
    return dict(images=images, annotations=annotations, categories=categories)


def write(root: Path, **files: dict) -> None:
    """Writes annotation files, and the images of all."""
    for name, content in files.items():
        (root / f'{name}.json').write_text(json.dumps(content))
        for image in content['images']:
            if isinstance(image.get('width'), int):
                picture = Image.new('RGB', (image['width'], image['height']), (90, 60, 30))
                picture.save(root / image['file_name'])


def detection(
    root: Path, steps: list = STEPS, classes: object = CLASSES, **train: object
) -> Config:
    """A config that trains on train.json and scores against val.json."""

    def loader(name: str, **more: object) -> dict:
        dataset = dict(type='CocoDataset', data_root=str(root), ann_file=f'{name}.json',
                       data_prefix=dict(img=''), metainfo=dict(classes=classes),
                       pipeline=steps, **more)  # fmt: skip
        return dict(batch_size=2, num_workers=0, dataset=dataset)

    return Config(
        dict(
            default_scope='mmdet',
            train_dataloader=loader(
                'train', filter_cfg=dict(filter_empty_gt=True, min_size=32), **train
            ),
            val_dataloader=loader('val', test_mode=True),
            val_evaluator=dict(
                type='CocoMetric', ann_file=str(root / 'val.json'), metric=['bbox', 'segm']
            ),
        )
    )


def kinds(cfg: Config) -> list[str]:
    return sorted({f'{p.split}: {p.kind}' for p in verify(cfg, ['train', 'val']).problems})


def trained(cfg: Config) -> list:
    """The samples that mmdet gives for training."""
    dataset = DET_DATASETS.build(dict(cfg.train_dataloader.dataset, _scope_='mmdet'))
    return [dataset[i] for i in range(len(dataset))]


def reorder(content: dict) -> dict:
    return dict(content, categories=content['categories'][::-1])


def shares(content: dict) -> dict:
    for annotation in content['annotations']:
        annotation['bbox'] = [x / 64 for x in annotation['bbox']]
    return content


def from_zero(content: dict) -> dict:
    for number, annotation in enumerate(content['annotations']):
        annotation['id'] = number
    return content


def thin(content: dict) -> dict:
    content['annotations'][0].update(bbox=[5, 5, 0.9, 20])
    return content


ORDER = 'categories in another order than classes'
# what is wrong -> train.json, val.json, the problems
FILES = {
    'nothing': (coco(), coco(), []),
    'order of val': (
        coco(),
        reorder(coco()),
        [f'val: {ORDER}', 'val: other classes than in train'],
    ),
    'order of both': (reorder(coco()), reorder(coco()), [f'train: {ORDER}', f'val: {ORDER}']),
    'order of train': (
        reorder(coco()),
        coco(),
        [f'train: {ORDER}', 'val: other classes than in train'],
    ),
    'id 0 where it is scored': (
        coco(),
        from_zero(coco()),
        ['val: annotation id 0 where it is scored'],
    ),
    'id 0 where it is not': (from_zero(coco()), coco(), []),
    'boxes as shares': (
        shares(coco()),
        coco(),
        ['train: box below one pixel', 'train: nothing left to train on'],
    ),
    'a thin box': (thin(coco()), coco(), ['train: box below one pixel']),
    'images below min_size': (
        coco((40, 31)),
        coco((40, 31)),
        ['train: image below min_size', 'train: nothing left to train on'],
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', FILES)
def test_files(name: str, tmp_path: Path) -> None:
    train, val, expected = FILES[name]
    write(tmp_path, train=train, val=val)
    cfg = detection(tmp_path)
    assert kinds(cfg) == expected
    dropped = {'boxes as shares': 4, 'a thin box': 1}.get(name, 0)
    if 'min_size' in name:
        with pytest.raises(ValueError):  # of numpy: there is nothing to join
            trained(cfg)
    else:
        left = sum(len(sample['data_samples'].gt_instances) for sample in trained(cfg))
        assert left == len(train['annotations']) - dropped


@pytest.mark.parametrize(
    ('mark', 'encoding'),
    [(codecs.BOM_UTF8, 'utf-8'), (codecs.BOM_UTF16_LE, 'utf-16-le'), (b'', 'utf-16-be')],
)
def test_encodings(mark: bytes, encoding: str, tmp_path: Path) -> None:
    write(tmp_path, train=coco(), val=coco())
    (tmp_path / 'train.json').write_bytes(mark + json.dumps(coco()).encode(encoding))
    cfg = detection(tmp_path)
    (problem,) = verify(cfg, ['train', 'val']).problems
    assert problem.kind == 'annotation file that training cannot read'
    with pytest.raises(ValueError):
        trained(cfg)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('stored', [True, False], ids=['as stored', 'as shown'])
def test_photos_are_taken_as_they_are_loaded(
    orientation: int, stored: bool, tmp_path: Path
) -> None:
    turned = orientation > 4
    content = coco((64, 48) if stored or not turned else (48, 64))
    write(tmp_path, train=content, val=content)
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = Image.new('RGB', (64, 48), (90, 60, 30))
    for name in ('1', '2'):
        photo.save(tmp_path / f'{name}.jpg', exif=exif)
        (tmp_path / f'{name}.jpg').rename(tmp_path / f'{name}.png')
    cfg = detection(tmp_path)
    report = verify(cfg, ['train'])
    wrong = turned and stored
    assert len(report.problems) == 2 * wrong
    assert all(f'EXIF orientation {orientation}' in p.detail for p in report.problems)
    # a photo upside down has the same size either way
    assert len(report.notes) == 2 * (1 < orientation <= 4)
    dataset = DET_DATASETS.build(
        dict(cfg.train_dataloader.dataset, lazy_init=True, _scope_='mmdet')
    )
    loaded = dataset.pipeline.transforms[0](dict(img_path=str(tmp_path / '1.png')))
    annotated = content['images'][0]
    assert (loaded['ori_shape'] != (annotated['height'], annotated['width'])) == wrong


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize(
    'kind, entries',
    [
        ('JPEG', dict(xmp=XMP)),
        ('JPEG', dict(exif=b'Exif\0\0II*\0')),
        ('PNG', dict(exif=b'Exif\0\0II*\0')),
        ('WEBP', dict(exif=b'Exif\0\0MM\0*')),
    ],
)
def test_entries_that_turn_no_photo(kind: str, entries: dict, tmp_path: Path) -> None:
    write(tmp_path, train=coco(), val=coco())
    Image.new('RGB', (64, 48), (90, 60, 30)).save(tmp_path / '1.png', format=kind, **entries)
    report = verify(detection(tmp_path), ['train'])
    assert report.problems == report.notes == ()


def save_pages(file: Path, kind: str) -> None:
    first, *others = (Image.new('RGB', (64, 48), (90 * page, 60, 30)) for page in range(3))
    first.save(file, format=kind, save_all=True, append_images=others)


@pytest.mark.parametrize(
    'kind, is_told', [('TIFF', True), ('GIF', True), ('PNG', True), ('MPO', False)]
)
def test_pictures_of_several_pages(kind: str, is_told: bool, tmp_path: Path) -> None:
    """The second picture of an MPO is a preview of the first."""
    write(tmp_path, train=coco(), val=coco())
    first = tmp_path / '1.png'
    save_pages(first, kind)
    report = verify(detection(tmp_path), ['train'])
    assert report.problems == ()
    told = [(note.kind, note.item, note.detail) for note in report.notes]
    words = '3 pages, of which the first is read'
    assert told == [('image of several pages', str(first), words)] * is_told


def test_damaged_pages_that_are_not_read_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path, train=coco(), val=coco())
    file = tmp_path / '1.png'
    save_pages(file, 'TIFF')
    content = bytearray(file.read_bytes())
    (first,) = struct.unpack_from('<I', content, 4)
    (entries,) = struct.unpack_from('<H', content, first)
    (second,) = struct.unpack_from('<I', content, first + 2 + 12 * entries)
    struct.pack_into('<H', content, second, 0)
    file.write_bytes(content)
    report = verify(detection(tmp_path), ['train'])
    assert report.problems == report.notes == ()


def save_as(kind: str) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        Image.new('RGB', (64, 48), (90, 60, 30)).save(path.with_suffix('.tmp'), format=kind)
        path.with_suffix('.tmp').rename(path)

    return save


FORMATS = ('TGA', 'PCX', 'SGI', 'BMP', 'PNG', 'JPEG', 'TIFF', 'WEBP', 'PPM', 'GIF', 'JPEG2000')


@pytest.mark.parametrize('kind', FORMATS)
def test_formats_under_another_name(kind: str, tmp_path: Path) -> None:
    write(tmp_path, train=coco(), val=coco())
    save_as(kind)(tmp_path / '1.png')
    loads = cv2.imread(str(tmp_path / '1.png')) is not None
    found = kinds(detection(tmp_path))
    assert found == ([] if loads else ['train: unreadable image', 'val: unreadable image'])
    if kind in ('TGA', 'PCX'):
        assert not loads


def test_a_picture_above_pillows_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, train=coco(), val=coco())
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    assert kinds(detection(tmp_path)) == []
    assert Image.MAX_IMAGE_PIXELS == 1000


WIDE = {
    'scaled': (np.linspace(0, 65535, 64), {}, []),
    'of 12 bits': (np.linspace(0, 4095, 64), {}, ['become at most 15 of 255']),
    'of 8 bits': (np.linspace(0, 200, 64), {}, ['are loaded as 0']),
    'cut': (np.linspace(0, 65535, 64), dict(imdecode_backend='pillow'), ['cuts at 255']),
    'unchanged': (np.linspace(0, 65535, 64), dict(color_type='unchanged'), ['for 0..255']),
}


@pytest.mark.parametrize('name', WIDE)
def test_images_of_16_bits_are_scaled_or_reported(name: str, tmp_path: Path) -> None:
    row, loading, details = WIDE[name]
    write(tmp_path, train=coco(), val=coco())
    cv2.imwrite(str(tmp_path / '1.png'), np.tile(row.astype(np.uint16), (48, 1)))
    cfg = detection(tmp_path, [dict(LOAD, **loading), *STEPS[1:]])
    problems = [p for p in verify(cfg, ['train']).problems if p.item.endswith('1.png')]
    assert [p.kind for p in problems] == ['image of more than 8 bits'] * len(details)
    assert all(part in p.detail for part, p in zip(details, problems, strict=True))


def test_run_lengths_where_polygons_are_wanted(tmp_path: Path) -> None:
    content = coco()
    content['annotations'][1]['segmentation'] = dict(size=[48, 64], counts=[0, 64 * 48])
    write(tmp_path, train=content, val=coco())
    assert kinds(detection(tmp_path)) == []
    cfg = detection(tmp_path, [LOAD, dict(MASKS, poly2mask=False), *STEPS[2:]])
    (problem,) = verify(cfg, ['train', 'val']).problems
    assert problem.kind == 'mask that training ignores' and '2 of image 1' in problem.item
    assert [len(s['data_samples'].gt_instances) for s in trained(cfg)] == [1, 2]


def test_a_test_set_without_annotations(tmp_path: Path) -> None:
    content = coco()
    write(tmp_path, train=content, val=content)
    del content['annotations']
    (tmp_path / 'val.json').write_text(json.dumps(content))
    cfg = detection(tmp_path)
    assert kinds(cfg) == ['val: damaged annotation file']
    cfg.val_evaluator.update(format_only=True, outfile_prefix='out')
    assert kinds(cfg) == []
    (tmp_path / 'train.json').write_text(json.dumps(content))
    assert kinds(cfg) == ['train: damaged annotation file']


@pytest.mark.parametrize('classes', ['cat', (), (1, 2), ('cat', 'cat'), 5])
def test_classes_that_are_no_names(classes: object, tmp_path: Path) -> None:
    write(tmp_path, train=coco(), val=coco())
    problems = verify(detection(tmp_path, classes=classes), ['train']).problems
    (problem,) = problems
    assert problem.kind == 'classes that are no names'
    assert 'comma' in problem.detail if isinstance(classes, str) else 'classes' in problem.detail


def test_only_one_of_two_classes_is_fine(tmp_path: Path) -> None:
    write(tmp_path, train=coco(), val=coco())
    assert kinds(detection(tmp_path, classes=('dog',))) == []


def test_another_file_than_is_tested_is_scored(tmp_path: Path) -> None:
    other = reorder(coco())
    other['images'].append(dict(id=3, file_name='3.png', width=64, height=48))
    write(tmp_path, train=coco(), val=coco(), scored=other)
    cfg = detection(tmp_path)
    cfg.val_evaluator.ann_file = str(tmp_path / 'scored.json')
    assert kinds(cfg) == [
        f'val: {ORDER}',
        'val: file that scores other images than are tested',
        'val: other classes than in train',
    ]


def test_types_may_be_classes_and_scoped(tmp_path: Path) -> None:
    from mmdet.datasets.transforms import LoadAnnotations

    write(tmp_path, train=coco(), val=coco())
    cfg = detection(tmp_path, [LOAD, dict(MASKS, type=LoadAnnotations), *STEPS[2:]])
    cfg.train_dataloader.dataset.type = CocoDataset
    cfg.val_dataloader.dataset.type = 'mmdet.CocoDataset'
    assert kinds(cfg) == []


@pytest.mark.parametrize('kind', ['NoSuchDataset', 'VOCDataset', None])
def test_other_data_sets_are_a_message(kind: str | None, tmp_path: Path) -> None:
    write(tmp_path, train=coco(), val=coco())
    cfg = detection(tmp_path)
    cfg.train_dataloader.dataset.type = kind
    with pytest.raises(UserError, match="COCO's format"):
        verify(cfg, ['train'])


@pytest.mark.parametrize('ann_file', ['folder', 's3://bucket/a.json'])
def test_annotation_files_that_are_none(ann_file: str, tmp_path: Path) -> None:
    write(tmp_path, train=coco(), val=coco())
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'a').touch()
    cfg = detection(tmp_path)
    cfg.train_dataloader.dataset.ann_file = ann_file
    if '://' in ann_file:
        with pytest.raises(UserError, match='on a disk'):
            verify(cfg, ['train'])
    else:
        assert kinds(cfg) == ['train: damaged annotation file']


# ------------------------------------------------------------------ segmentation


def segmentation(root: Path, **dataset: object) -> Config:
    """A config that trains on label maps of four classes."""
    settings = dict(type='BaseSegDataset', data_root=str(root), img_suffix='.png',
                    metainfo=dict(classes=('other', 'cat', 'dog', 'cow')),
                    data_prefix=dict(img_path='img', seg_map_path='ann'), **dataset)  # fmt: skip
    steps = [LOAD, dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    loader = dict(batch_size=2, num_workers=0, dataset=dict(settings, pipeline=steps))
    return Config(dict(default_scope='mmseg', train_dataloader=loader))


def write_maps(root: Path, labels: np.ndarray, name: str = 'a') -> None:
    for folder in ('img', 'ann'):
        (root / folder).mkdir(exist_ok=True)
    Image.new('RGB', labels.shape[::-1]).save(root / 'img' / f'{name}.png')
    Image.fromarray(labels).save(root / 'ann' / f'{name}.png')


def maps(*values: int, dtype: type = np.uint8) -> np.ndarray:
    return np.resize(np.array(values, dtype), (40, 48))


ADE = dict(type='ADE20KDataset', metainfo=dict(classes=('building', 'flag')))
# label maps -> settings of the data set, the wrong labels that are told
LABELS = {
    'all classes': (maps(0, 1, 2, 3, 255), {}, None),
    'one more': (maps(0, 4), {}, '[4], not in 0..3'),
    'counted from one': (maps(0, 4, 255), dict(reduce_zero_label=True), None),
    'counted from one, one more': (maps(5), dict(reduce_zero_label=True), '[5], not in 0..4'),
    'two of ADE20K': (maps(0, 1, 2, 150), dict(ADE, reduce_zero_label=True), None),
    'two of ADE20K, one more': (
        maps(0, 151),
        dict(ADE, reduce_zero_label=True),
        '[151], not in 0..150',
    ),
    '16 bits': (maps(0, 3, 65535, dtype=np.uint16), {}, None),
    '16 bits that would be cut': (maps(0, 257, dtype=np.uint16), {}, '[257], not in 0..3'),
    '255 alone': (maps(255), {}, None),
}


@pytest.mark.parametrize('name', LABELS)
def test_labels(name: str, tmp_path: Path) -> None:
    labels, settings, detail = LABELS[name]
    write_maps(tmp_path, labels)
    cfg = segmentation(tmp_path)
    cfg.train_dataloader.dataset.update(settings)
    details = [problem.detail for problem in verify(cfg).problems]
    assert details == ([] if detail is None else [detail])
    dataset = SEG_DATASETS.build(dict(cfg.train_dataloader.dataset, _scope_='mmseg'))
    given = dataset[0]['data_samples'].gt_sem_seg.data.numpy()
    fits = (given < len(dataset.metainfo['classes'])) | (given == 255)
    # labels that are cut to 8 bits look right afterwards
    assert fits.all() == (detail is None or 'cut' in name)


def test_label_maps_of_several_pages(tmp_path: Path) -> None:
    write_maps(tmp_path, maps(0))
    pages = [Image.fromarray(maps(value)) for value in (1, 2)]
    file = tmp_path / 'ann/a.png'
    pages[0].save(file, format='TIFF', save_all=True, append_images=pages[1:])
    report = verify(segmentation(tmp_path))
    assert report.problems == ()
    assert [(note.kind, note.item) for note in report.notes] == [
        ('mask of several pages', str(file))
    ]


def test_a_list_with_a_byte_order_mark(tmp_path: Path) -> None:
    write_maps(tmp_path, maps(0))
    (tmp_path / 'list.txt').write_bytes(codecs.BOM_UTF8 + b'a\n')
    cfg = segmentation(tmp_path, ann_file='list.txt')
    assert kinds(cfg) == ['train: annotation file that training cannot read']
    (tmp_path / 'list.txt').write_bytes(b'a\r\n')
    assert kinds(cfg) == []


def test_images_without_label_maps(tmp_path: Path) -> None:
    write_maps(tmp_path, maps(0))
    cfg = segmentation(tmp_path, test_mode=True)
    cfg.train_dataloader.dataset.data_prefix = dict(img_path='img')
    cfg.train_dataloader.dataset.pipeline = [LOAD, dict(type='PackSegInputs')]
    cfg = Config(dict(default_scope='mmseg', val_dataloader=cfg.train_dataloader))
    assert kinds(cfg) == []


def test_a_pipeline_that_cannot_do_an_image(tmp_path: Path) -> None:
    write_maps(tmp_path, np.zeros((2, 1800), np.uint8))
    cfg = segmentation(tmp_path)
    cfg.train_dataloader.dataset.pipeline.insert(
        2, dict(type='Resize', scale=(64, 64), keep_ratio=True)
    )
    (problem,) = verify(cfg).problems
    assert problem.kind == 'image that the pipeline fails at'
    assert problem.detail == 'Resize leaves no row or no column of 1800x2 pixels; crop it'


def test_a_label_map_of_one_row(tmp_path: Path) -> None:
    write_maps(tmp_path, np.zeros((1, 40), np.uint8))
    assert kinds(segmentation(tmp_path)) == ['train: mask of one row or column']


def test_a_detection_scope_does_not_matter_for_segmentation(tmp_path: Path) -> None:
    from mmengine.registry import DefaultScope

    write_maps(tmp_path, maps(0))
    DefaultScope.get_instance('other', scope_name='mmdet')
    assert kinds(segmentation(tmp_path)) == []
