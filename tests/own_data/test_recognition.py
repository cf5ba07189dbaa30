"""What a folder is recognised as, and the one message when it is nothing or two things at once."""

import re
import shutil
import zlib
from pathlib import Path

import pytest
import yaml

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.digit_scenes import CLASSES
from attnpool_backbones.own_data.checking import check
from attnpool_backbones.own_data.preparing import Request, read_labels
from attnpool_backbones.own_data.recognition import FORMATS, open_folder, recognise
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
    labels.images *= 1 + 100 // sum(labels.counts().values())
    problems = [p for p in check(labels, None).problems if p.kind == 'class that may be misspelt']
    if slip == 'seven ':
        assert not problems  # spaces around a name are nobody's intention
        return
    (problem,) = problems
    assert problem.item == 'train/train_000001.json, shape 1'
    assert f'{slip!r}' in problem.detail and "meant 'seven'" in problem.detail
    assert check(labels, ['seven', slip]).problems == []


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


def test_coco_files_of_both_splits_are_taken_as_they_are(digits):
    labels = labels_of(digits, format='coco')
    assert labels.coco_files == {
        'train': ('annotations/instances_train.json', 'images/training/'),
        'val': ('annotations/instances_val.json', 'images/validation/'),
    }
    assert labels_of(digits, format='coco', classes=['one']).coco_files is None


def test_own_outputs_and_linked_folders(digits, tmp_path):
    root = tmp_path / 'photos'
    written.yolo(written.load_scenes(digits), root, False)
    before = labels_of(root)
    (root / 'images').rename(tmp_path / 'elsewhere')
    (root / 'images').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere/back').symlink_to(root)  # a loop
    image = next((tmp_path / 'elsewhere').rglob('*.png'))
    for file in ('work_dirs/run/annotations/train.json', 'seen/index.html',
                 'predictions/predictions.jsonl'):  # fmt: skip
        (root / file).parent.mkdir(parents=True)
        (root / file).write_text('{"images": [], "annotations": [], "categories": []}')
    for file in ('seen/samples/0.png', 'predictions/pictures/0.png'):
        (root / file).parent.mkdir()
        shutil.copy(image, root / file)
    assert recognise(open_folder(str(root))).format == 'yolo'
    assert [image.file for image in labels_of(root).images] == [i.file for i in before.images]


def test_image_above_the_limit_of_pillow_is_told(digits, tmp_path):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    wide = next((tmp_path / 'images').rglob('*.png'))
    content = bytearray(wide.read_bytes())
    content[16:24] = (20_000).to_bytes(4, 'big') * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, 'big')
    wide.write_bytes(content)
    (problem,) = labels_of(tmp_path).problems
    assert problem.kind == 'unreadable image' and wide.name in problem.item


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


@pytest.mark.parametrize('change', [moved, quoted, posed, with_lists])
def test_yolo_folders_as_they_come(digits, tmp_path, change):
    written.yolo(written.load_scenes(digits), tmp_path, False)
    before = by_file(tmp_path)
    classes = labels_of(tmp_path).classes
    change(tmp_path)
    assert by_file(tmp_path) == before
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.classes[: len(classes)] == classes


def renumbered(root: Path) -> None:
    describe(root, names={number + 1: str(number) for number in range(10)})


def without_an_image(root: Path) -> None:
    # its label file is taken for the image of that name in train
    file = next((root / 'images/val').iterdir())
    file.unlink()
    shutil.copy(next((root / 'images/train').iterdir()), root / 'images/train' / file.name)
    (root / 'labels/train' / f'{file.stem}.txt').write_text('0 0.5 0.5 0.1 0.1')


@pytest.mark.parametrize(
    'change, kind, words',
    [
        (renumbered, 'classes do not fit', '1, 2, 3, 4, 5, 6, 7, 8, 9, 10, not 0 to 9'),
        (without_an_image, 'two label files for an image', 'labels/train/'),
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
    describe(tmp_path, test='../elsewhere/test')
    labels = labels_of(tmp_path)
    assert 'no image of test: ../elsewhere/test (YAML file)' in labels.notes


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
    image_sets(
        tmp_path,
        Main_trainval=stems[:12],
        Main_train=[f'{stem}  1' for stem in stems[:6]],
        Main_val=[f'{stem}.png -1' for stem in stems[6:10]],
        Layout_val=stems[:6],
    )
    assert splits() == ['train'] * 6 + ['val'] * 4 + ['train'] * 2
    assert any('1 files, such as' in note for note in labels_of(tmp_path).notes)


@pytest.mark.parametrize('name', ['photo 1', 'a.v2', 'a.v2 0'])
@pytest.mark.parametrize('form', ['{}', '{} 1', '{}.png'])
def test_image_sets_name_images_of_any_name(digits, tmp_path, name, form):
    written.voc(written.load_scenes(digits), tmp_path, False)
    first, *rest = sorted(file.stem for file in (tmp_path / 'Annotations').iterdir())
    (tmp_path / 'Annotations' / f'{first}.xml').rename(tmp_path / f'Annotations/{name}.xml')
    (tmp_path / 'JPEGImages' / f'{first}.png').rename(tmp_path / f'JPEGImages/{name}.png')
    image_sets(tmp_path, Main_train=[form.format(name), *rest[:8]], Main_val=rest[8:])
    assert by_file(tmp_path)[f'JPEGImages/{name}.png'][0] == 'train'


def test_boxes_that_count_from_zero_in_floats(digits, tmp_path):
    written.voc(written.load_scenes(digits), tmp_path, False)
    file = sorted((tmp_path / 'Annotations').iterdir())[0]
    text = file.read_text()
    file.write_text(re.sub('<xmin>.*?</xmin>', '<xmin>0.0</xmin>', text, count=1))
    labels = labels_of(tmp_path)
    assert any('count from 0' in note for note in labels.notes)
    assert min(instance.box[0] for instance in labels.instances()) == 0
