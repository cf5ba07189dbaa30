"""The digit scenes, written in six formats, are the same annotations and score the same."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.digit_scenes import CLASSES
from attnpool_backbones.own_data.coco_files import write_coco_files
from attnpool_backbones.own_data.label_map_files import lay_out
from attnpool_backbones.own_data.reading import read_labels
from attnpool_backbones.own_data.recognition import open_folder
from attnpool_backbones.own_data.request import Request
from tests.own_data import scenes as written

BOXES = list(written.WRITERS)
OUTLINES = ['coco', 'yolo', 'labelme', 'via', 'cvat']


def convert(root: Path, out: Path) -> dict[str, Path]:
    request = Request(str(root), '', '', classes=list(CLASSES))
    labels, _ = read_labels(request, open_folder(str(root)), for_masks=False)
    assert labels.problems == []
    return write_coco_files(labels, out)


def entries(file: Path) -> list[tuple]:
    """All that a file says, without the numbers that it chose."""
    content = json.loads(file.read_text())
    images = {image['id']: image for image in content['images']}
    names = {category['id']: category['name'] for category in content['categories']}
    rows = []
    for image in images.values():
        rows.append((Path(image['file_name']).stem, image['width'], image['height']))
    for annotation in content['annotations']:
        rows.append((
            Path(images[annotation['image_id']]['file_name']).stem,
            names[annotation['category_id']],
            json.dumps(annotation['bbox']),
            annotation['area'],
            annotation['iscrowd'],
            json.dumps(annotation.get('segmentation')),
        ))  # fmt: skip
    return sorted(rows, key=str)


def scores(file: Path, kind: str) -> list[float]:
    """Scores predictions that are the truth of the scenes, moved a little, against a file."""
    truth = COCO(str(file))
    numbers = {Path(image['file_name']).stem: image['id'] for image in truth.imgs.values()}
    categories = {category['name']: category['id'] for category in truth.cats.values()}
    randomness = np.random.default_rng(0)
    results = []
    for stem, name, box, _, _, outlines in (row for row in entries(file) if len(row) == 6):
        moved = (np.array(json.loads(box)) + randomness.uniform(0, 1.5, 4)).tolist()
        result = dict(image_id=numbers[stem], category_id=categories[name], bbox=moved,
                      score=randomness.uniform())  # fmt: skip
        if kind == 'segm':
            shifted = np.array(json.loads(outlines)[0]) + randomness.uniform(0, 2)
            result['segmentation'] = [shifted.tolist()]
            image = truth.imgs[numbers[stem]]
            mask = written.coco_mask.frPyObjects(
                result['segmentation'], image['height'], image['width']
            )
            result['segmentation'] = written.coco_mask.merge(mask)
        results.append(result)
    evaluation = COCOeval(truth, truth.loadRes(results), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.mark.parametrize('outlines', [False, True], ids=['boxes', 'outlines'])
def test_objects_of_all_formats_are_the_same(digits, tmp_path, outlines, capsys):
    content = written.load_scenes(digits)
    found = {}
    for name in OUTLINES if outlines else BOXES:
        written.WRITERS[name](content, tmp_path / name, outlines)
        files = convert(tmp_path / name, tmp_path / f'{name}_out')
        kind = 'segm' if outlines else 'bbox'
        found[name] = {split: (entries(f), scores(f, kind)) for split, f in files.items()}
    assert set(found['coco']) == {'train', 'val'}
    for split, (rows, metrics) in found['coco'].items():
        expected = sum(len(s.objects) + 1 for s in content if s.split == split)
        assert len(rows) == expected
        assert 0.1 < metrics[0] < 1
    for name, splits in found.items():
        for split, (rows, metrics) in splits.items():
            assert rows == found['coco'][split][0], (name, split)
            assert metrics == found['coco'][split][1], (name, split)


@pytest.mark.parametrize('outlines', [False, True], ids=['boxes', 'outlines'])
def test_tracks_of_a_video_are_the_same(digits, tmp_path, outlines):
    content = written.load_scenes(digits)
    for number, scene in enumerate(content):
        scene.stem = f'frame_{number:06d}'
    content[1].objects.clear()
    written.cvat(content, tmp_path / 'images', outlines)
    written.cvat_video(content, tmp_path / 'video', outlines)
    found = {}
    for name in ('images', 'video'):
        files = convert(tmp_path / name, tmp_path / f'{name}_out')
        found[name] = {split: entries(file) for split, file in files.items()}
    assert found['video'] == found['images']
    assert set(found['video']) == {'train', 'val'}
    assert sum(len(rows) for rows in found['video'].values()) == sum(
        len(scene.objects) + 1 for scene in content
    )


def drawn(scene: written.Scene) -> np.ndarray:
    """Draws the outlines of a scene, the smaller ones over the larger ones."""
    masks = []
    for item in scene.objects:
        coded = written.coco_mask.frPyObjects([item.outline], scene.height, scene.width)
        mask = written.coco_mask.decode(written.coco_mask.merge(coded))
        masks.append((int(mask.sum()), mask.astype(bool), CLASSES.index(item.name) + 1))
    labels = np.zeros((scene.height, scene.width), np.uint8)
    for _, mask, label in sorted(masks, key=lambda row: -row[0]):
        labels[mask] = label
    return labels


@pytest.mark.parametrize('form', OUTLINES)
def test_outlines_are_drawn_as_label_maps(digits, tmp_path, form):
    content = written.load_scenes(digits)
    written.WRITERS[form](content, tmp_path / 'data', True)
    request = Request(str(tmp_path / 'data'), '', '', classes=list(CLASSES))
    labels, _ = read_labels(request, open_folder(request.folder), for_masks=True)
    assert labels.problems == [] and labels.classes == ('background', *CLASSES)
    assert any('label maps are drawn' in note for note in labels.notes)
    layouts = lay_out(labels, tmp_path / 'run')
    for scene in content:
        (layout,) = layouts[scene.split]
        (file,) = Path(layout.label_maps).rglob(f'{scene.stem}.png.png')
        result = np.asarray(Image.open(file))
        # YOLO's shares are rounded
        assert (result != drawn(scene)).mean() < (0.005 if form == 'yolo' else 1e-9)
        assert result.max() > 0


@pytest.mark.parametrize('form', ['coco', 'cvat'])
def test_images_of_one_name_have_label_maps_of_their_own(digits, tmp_path, form):
    content = written.load_scenes(digits)
    written.WRITERS[form](content, tmp_path / 'data', True)
    first = content[0]
    (image,) = (tmp_path / 'data').rglob(f'{first.stem}.png')
    Image.open(image).save(image.with_suffix('.bmp'))
    for file in (tmp_path / 'data').glob('*.*'):
        file.write_text(file.read_text().replace(f'{first.stem}.png', f'{first.stem}.bmp'))
    image_listed_alone(tmp_path / 'data', first)
    request = Request(str(tmp_path / 'data'), '', '', classes=list(CLASSES))
    labels, _ = read_labels(request, open_folder(request.folder), for_masks=True)
    assert labels.problems == []
    highest = {}
    for layout in lay_out(labels, tmp_path / 'run')['train']:
        (file,) = Path(layout.label_maps).rglob(f'{first.stem}{layout.map_suffix}')
        highest[layout.image_suffix] = np.asarray(Image.open(file)).max()
    # the labels are of one of the two, the other one is listed without an object
    assert highest.keys() == {'.png', '.bmp'} and min(highest.values()) == 0 < max(highest.values())


def image_listed_alone(root: Path, scene: written.Scene) -> None:
    """Lists the ``.png`` of a scene in addition, as an image of background."""
    file = root / 'annotations.xml'
    if file.is_file():
        tree = ElementTree.parse(file)
        told = dict(name=f'{scene.stem}.png', subset='train')
        ElementTree.SubElement(tree.getroot(), 'image', told)
        tree.write(file)
        return
    file = root / 'train_labels.json'
    content = json.loads(file.read_text())
    told = dict(content['images'][0], id=999, file_name=f'{scene.stem}.png')
    content['images'].append(told)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    'form, for_masks',
    [('labelme', False), ('labelme', True), ('cvat', False), ('cvat', True), ('voc', False)],
)
def test_image_with_two_label_files_is_told(digits, tmp_path, form, for_masks):
    content = written.load_scenes(digits)
    written.WRITERS[form](content, tmp_path, for_masks)
    ending = '.json' if form == 'labelme' else '.xml'
    file = sorted(tmp_path.rglob(f'*{ending}'))[0]
    name = f'{content[0].stem}{ending}' if form != 'cvat' else 'again.xml'
    (tmp_path / 'again').mkdir()
    (tmp_path / 'again' / name).write_bytes(file.read_bytes())
    labels, _ = read_labels(Request(str(tmp_path), '', ''), open_folder(str(tmp_path)), for_masks)
    repeated = [p for p in labels.problems if p.kind == 'image listed more than once']
    assert repeated and all(f'again/{name}' in p.detail for p in repeated)


def test_classes_of_outlines_that_are_none(digits, tmp_path):
    content = written.load_scenes(digits)
    first, second = content[0].objects[:2]
    first.name, second.name = '__ignore__', '_background_'
    written.labelme(content[:1] + content[-1:], tmp_path / 'data', True)
    request = Request(str(tmp_path / 'data'), '', '')
    labels, _ = read_labels(request, open_folder(request.folder), for_masks=True)
    assert not {'__ignore__', '_background_'} & set(labels.classes)
    lay_out(labels, tmp_path / 'run')
    (file,) = (tmp_path / 'run/label_maps').rglob(f'{content[0].stem}.png.png')
    values = set(np.unique(np.asarray(Image.open(file))).tolist())
    assert 255 in values and values - {255} <= set(range(len(labels.classes)))


@pytest.mark.parametrize('for_masks', [False, True])
def test_objects_have_no_values_to_ignore(digits, tmp_path, for_masks):
    written.labelme(written.load_scenes(digits), tmp_path, True)
    request = Request(str(tmp_path), '', '', ignored=(3, 4))
    with pytest.raises(UserError, match='--ignore-label 3 4: .*the labels are objects .labelme'):
        read_labels(request, open_folder(str(tmp_path)), for_masks)


def test_boxes_are_no_label_maps(digits, tmp_path):
    written.labelme(written.load_scenes(digits), tmp_path, False)
    with pytest.raises(UserError, match='boxes without an outline .*shape 1.*--head faster-rcnn'):
        read_labels(Request(str(tmp_path), '', ''), open_folder(str(tmp_path)), True)


@pytest.mark.parametrize('kind', ['ids', 'colours', 'bare colours', 'beside', 'grey'])
def test_masks_of_all_kinds_are_the_same(digits, tmp_path, kind):
    root = tmp_path / 'data'
    written.masks(digits, root, kind)
    labels, _ = read_labels(Request(str(root), '', ''), open_folder(str(root)), for_masks=True)
    assert labels.problems == []
    layouts = lay_out(labels, tmp_path / 'run')
    order = None
    if kind == 'bare colours':
        assert sorted(labels.palette) == sorted(written.COLOURS)
        order = [labels.palette.index(colour) for colour in written.COLOURS]
    else:
        assert labels.classes == ('other', *CLASSES)
    if kind == 'ids':
        assert not (tmp_path / 'run').exists()
    for split, folder in written.SPLITS.items():
        (layout,) = layouts[split]
        expected = sorted((digits / 'annotations' / folder).glob('*.png'))
        for file in expected:
            truth = np.asarray(Image.open(file))
            path = root / layout.label_maps / f'{file.stem}{layout.map_suffix}'
            image = root / layout.images / f'{file.stem}{layout.image_suffix}'
            assert image.is_file()
            result = np.asarray(Image.open(path))
            assert np.array_equal(result, truth if order is None else np.array(order)[truth])


def test_mmseg_scores_all_kinds_of_masks_the_same(digits, tmp_path):
    pytest.importorskip('mmseg')
    from mmengine.registry import DefaultScope
    from mmseg.datasets import BaseSegDataset
    from mmseg.evaluation import IoUMetric

    metrics = {}
    for kind in ('ids', 'colours', 'beside', 'grey'):
        root = tmp_path / kind
        written.masks(digits, root, kind)
        labels, _ = read_labels(Request(str(root), '', ''), open_folder(str(root)), True)
        (layout,) = lay_out(labels, tmp_path / f'{kind}_run')['val']
        with DefaultScope.overwrite_default_scope('mmseg'):
            data = BaseSegDataset(
                ann_file=str(layout.listing or ''), data_root=str(root), pipeline=[],
                metainfo=dict(classes=labels.classes, palette=[list(c) for c in labels.palette]),
                data_prefix=dict(img_path=layout.images, seg_map_path=layout.label_maps),
                img_suffix=layout.image_suffix, seg_map_suffix=layout.map_suffix,
            )  # fmt: skip
        metric = IoUMetric()
        metric.dataset_meta = data.metainfo
        randomness = np.random.default_rng(0)
        for index in range(len(data)):
            truth = np.asarray(Image.open(data.get_data_info(index)['seg_map_path']))
            guess = np.where(randomness.uniform(size=truth.shape) < 0.2, 0, truth)
            import torch

            areas = metric.intersect_and_union(
                torch.from_numpy(guess), torch.from_numpy(truth.astype(np.int64)), 11, 255
            )
            metric.results.append(areas)
        metrics[kind] = metric.compute_metrics(metric.results)
    assert all(values == metrics['ids'] for values in metrics.values())
    assert 50 < metrics['ids']['mIoU'] < 100


def test_hotcoco_reads_boxes_as_we_do(digits, tmp_path):
    """The formats that a library reads too, as far as it does: boxes, and outlines of CVAT."""
    hotcoco = pytest.importorskip('hotcoco')
    content = written.load_scenes(digits)
    for name in ('voc', 'cvat'):
        written.WRITERS[name](content, tmp_path / name, name == 'cvat')
        files = convert(tmp_path / name, tmp_path / f'{name}_out')
        ours = {(row[0], row[1], tuple(json.loads(row[2]))) for file in files.values()
                for row in entries(file) if len(row) == 6}  # fmt: skip
        if name == 'voc':
            theirs = hotcoco.COCO.from_voc(str(tmp_path / name)).dataset
        else:
            theirs = hotcoco.COCO.from_cvat(str(tmp_path / name / 'annotations.xml')).dataset
        images = {image['id']: Path(image['file_name']).stem for image in theirs['images']}
        names = {category['id']: category['name'] for category in theirs['categories']}
        rows = {(images[a['image_id']], names[a['category_id']], tuple(a['bbox']))
                for a in theirs['annotations']}  # fmt: skip
        assert ours == rows
