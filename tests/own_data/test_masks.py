"""Which values of masks are which classes, and what is no mask at all."""

import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from attnpool_backbones.cli import main
from attnpool_backbones.command_line import UserError
from attnpool_backbones.own_data.label_map_files import lay_out
from attnpool_backbones.own_data.label_problems import BrokenLabels
from attnpool_backbones.own_data.labels import LabelMaps
from attnpool_backbones.own_data.reading import read_labels
from attnpool_backbones.own_data.recognition import open_folder
from attnpool_backbones.own_data.request import Request

HEIGHT, WIDTH = 48, 64
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
TRUTH = ((ROWS - 20) ** 2 + (COLUMNS - 30) ** 2 < 200).astype(np.uint8)
"""1 in a disc, 0 around it."""


def write(root: Path, mask: np.ndarray, listed: str = '', suffix: str = '.png') -> None:
    for folder in ('images', 'masks'):
        (root / folder).mkdir(parents=True)
    for name in 'abcd':
        Image.new('RGB', (WIDTH, HEIGHT)).save(root / 'images' / f'{name}.png')
        Image.fromarray(mask).save(root / 'masks' / f'{name}{suffix}')
    if listed:
        (root / 'classes.txt').write_text(listed)


def labels_of(
    root: Path, classes: Sequence[str] | None = None, ignored: Sequence[int] = ()
) -> LabelMaps:
    request = Request(str(root), '', '', classes=classes, ignored=ignored)
    return read_labels(request, open_folder(str(root)), for_masks=True)[0]


def map_of(labels: LabelMaps, run: Path) -> np.ndarray:
    """Returns one of the label maps that a training reads."""
    layout = lay_out(labels, run)['train'][0]
    file = min((labels.root / layout.label_maps).rglob(f'*{layout.map_suffix}'))
    return np.asarray(Image.open(file))


def grey(mask: np.ndarray) -> np.ndarray:
    return np.stack([mask] * 3, axis=-1)


def blue(mask: np.ndarray) -> np.ndarray:
    return np.stack([mask * 0, mask * 0, mask], axis=-1)


BLACK_AND_WHITE = 'background,0,0,0\npolyp,255,255,255'


@pytest.mark.parametrize(
    'listed, draw',
    [
        ('background\npolyp', np.array),
        ('background\npolyp', grey),
        (BLACK_AND_WHITE, np.array),
        (BLACK_AND_WHITE, grey),
        ('background 0\npolyp 255', np.array),
        ('background,0,0,0\npolyp,0,0,255', blue),
        ('background,0,0,0\npolyp,255,255,255\nvoid,128,128,128', grey),
        ('void,9,9,9\n' + BLACK_AND_WHITE, np.array),
    ],
)
def test_255_is_the_second_class_where_the_list_says_so(
    listed: str, draw: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    write(tmp_path / 'data', draw(TRUTH * 255), listed)
    labels = labels_of(tmp_path / 'data')
    assert labels.problems == [] and labels.classes == ('background', 'polyp')
    assert len(labels.palette) == 2
    assert np.array_equal(map_of(labels, tmp_path / 'run'), TRUTH)


def test_255_is_the_second_class_that_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / 'data', TRUTH * 255)
    labels = labels_of(tmp_path / 'data', classes=['background', 'polyp'])
    assert labels.classes == ('background', 'polyp')
    assert np.array_equal(map_of(labels, tmp_path / 'run'), TRUTH)


def test_255_is_ignored_where_it_is_a_border_or_said_to_be(tmp_path: Path) -> None:
    bordered = TRUTH.copy()
    bordered[19:21] = 255
    write(tmp_path / 'bordered', bordered, 'background\npolyp\nnever')
    labels = labels_of(tmp_path / 'bordered')
    assert labels.problems == [] and len(labels.classes) == 3
    assert np.array_equal(map_of(labels, tmp_path / 'run'), bordered)
    write(tmp_path / 'said', TRUTH * 255, BLACK_AND_WHITE)
    labels = labels_of(tmp_path / 'said', ignored=[255])
    assert labels.problems == [] and labels.classes == ('background',)
    assert np.array_equal(map_of(labels, tmp_path / 'other'), TRUTH * 255)


@pytest.mark.parametrize('listed', ['background\npolyp\ntool', 'polyp', 'background 0\npolyp 1'])
def test_classes_of_which_255_covers_the_place(listed: str, tmp_path: Path) -> None:
    write(tmp_path, TRUTH * 255, listed)
    (found,) = labels_of(tmp_path).problems
    assert found.kind == 'classes do not fit'
    assert 'polyp' in found.detail and '255' in found.detail
    assert labels_of(tmp_path, ignored=[255]).problems == []


def write_all(root: Path, files: Sequence[str], mask: np.ndarray) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(root / file)


def test_masks_of_single_objects_do_not_stand_for_classes(tmp_path: Path) -> None:
    names = ('a', 'b', 'c', 'd')
    write_all(tmp_path, [f'JPEGImages/{name}.jpg' for name in names], grey(TRUTH * 0))
    write_all(tmp_path, [f'SegmentationClass/{name}.png' for name in names], TRUTH * 3)
    write_all(tmp_path, [f'SegmentationObject/{name}.png' for name in names], TRUTH * 7)
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.classes == ('class_0', 'class_3')
    assert {pair.label_map for pair in labels.pairs} == {
        f'SegmentationClass/{name}.png' for name in names
    }
    assert not any('left out' in note for note in labels.notes)


def test_pictures_that_labelme_draws_of_masks_are_no_masks(tmp_path: Path) -> None:
    write(tmp_path, TRUTH)
    (tmp_path / 'masks').rename(tmp_path / 'SegmentationClass')
    (tmp_path / 'images').rename(tmp_path / 'JPEGImages')
    drawn = tmp_path / 'SegmentationClassVisualization'
    drawn.mkdir()
    for name in 'abcd':
        Image.new('RGB', (WIDTH, HEIGHT)).save(drawn / f'{name}.jpg')
    labels = labels_of(tmp_path)
    assert labels.problems == []
    assert [p.label_map for p in labels.pairs] == [f'SegmentationClass/{n}.png' for n in 'abcd']
    assert not any('without a mask' in note for note in labels.notes)


@pytest.mark.parametrize(
    'files',
    [
        ['images/a.png', 'masks/a.png', 'labels/a.png'],
        ['images/a.png', 'masks/a.png', 'masks/a.bmp'],
        ['a.png', 'a_mask.png', 'a_gt.png'],
    ],
)
def test_image_with_two_masks_names_both(files: list[str], tmp_path: Path) -> None:
    write(tmp_path, TRUTH)
    for name in ('images/a.png', 'masks/a.png'):
        (tmp_path / name).unlink()
    write_all(tmp_path, files, TRUTH)
    labels = labels_of(tmp_path)
    (found,) = labels.problems
    assert (found.kind, found.item) == ('image with several masks', files[0])
    assert all(mask in found.detail for mask in files[1:])
    assert len(labels.pairs) == 3 and not labels.notes[1:]


@pytest.mark.parametrize('of_masks, of_photos', [('NFC', 'NFD'), ('NFD', 'NFC')])
def test_accents_of_names_may_be_written_in_two_ways(
    of_masks: str, of_photos: str, tmp_path: Path
) -> None:
    for name in ('á', 'é', 'ü', 'ñ'):
        files = [
            f'masks/{normalize(of_masks, name)}.png',
            f'images/{normalize(of_photos, name)}.png',
        ]
        write_all(tmp_path / 'data', files, TRUTH)
    labels = labels_of(tmp_path / 'data')
    assert labels.problems == [] and len(labels.pairs) == 4
    assert np.array_equal(map_of(labels, tmp_path / 'run'), TRUTH)


def test_list_that_is_no_utf_8_is_told(tmp_path: Path) -> None:
    write(tmp_path, TRUTH)
    (tmp_path / 'classes.txt').write_text('grund\nhöhle', encoding='latin-1')
    (found,) = labels_of(tmp_path).problems
    assert (found.kind, found.item) == ('no text in UTF-8', 'classes.txt')


@pytest.mark.parametrize('purpose', ['Segmentation', 'Main'])
def test_image_sets_tell_splits_of_masks(purpose: str, tmp_path: Path) -> None:
    folders = 'JPEGImages', 'SegmentationClass'
    write_all(tmp_path, [f'{folder}/{name}.png' for folder in folders for name in 'abcde'], TRUTH)
    sets = tmp_path / 'ImageSets'
    listed = {f'{purpose}/train': 'a\nc', f'{purpose}/val': 'b', f'{purpose}/test': 'd'}
    if purpose == 'Segmentation':  # the lists of objects are others
        listed |= {'Main/train': 'e', 'Main/val': 'a\nb\nc\nd'}
    for name, lines in listed.items():
        (sets / name).parent.mkdir(parents=True, exist_ok=True)
        (sets / f'{name}.txt').write_text(lines)
    labels = labels_of(tmp_path)
    splits = {Path(pair.image).stem: pair.split for pair in labels.pairs}
    assert splits == dict(a='train', c='train', b='val', d='test')
    assert 'left out, as in no list of ImageSets: 1 of 5 images, such as JPEGImages/e.png' in (
        labels.notes
    )


def write_lists(root: Path, names: list[str], listed: dict[str, str]) -> LabelMaps:
    folders = 'JPEGImages', 'SegmentationClass'
    write_all(root, [f'{folder}/{name}.png' for folder in folders for name in names], TRUTH)
    for name, lines in listed.items():
        file = root / 'ImageSets' / f'{name}.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(lines)
    return labels_of(root)


@pytest.mark.parametrize('listed', [
    {'2017/train': 'bear', '2017/val': 'dog'},  # videos, as DAVIS lists them
    {'2017/val': 'dog'},
    {'480p/train': 'a.jpg a_mask.png'},
])  # fmt: skip
def test_image_sets_that_name_no_image_are_not_used(listed: dict, tmp_path: Path) -> None:
    labels = write_lists(tmp_path, ['a', 'b'], listed)
    assert {pair.split for pair in labels.pairs} == {'train', 'val'}  # by share
    assert 'lists in ImageSets are not used: they name no image' in labels.notes


def test_image_sets_of_names_that_several_images_have_are_not_used(tmp_path: Path) -> None:
    listed = {'480p/train': '/JPEGImages/bear/0.jpg', '480p/val': '/JPEGImages/dog/0.jpg'}
    labels = write_lists(tmp_path, ['bear/0', 'dog/0'], listed)
    assert {pair.split for pair in labels.pairs} == {'train', 'val'}  # by share
    assert 'lists in ImageSets are not used: they name several images at once' in labels.notes


def test_image_sets_of_augmented_voc(tmp_path: Path) -> None:
    listed = {'trainval': 'a\nb', 'train': 'a', 'val': 'b', 'trainaug': 'a\nc\nd\nb'}
    listed = {f'Segmentation/{name}': lines for name, lines in listed.items()}
    labels = write_lists(tmp_path, ['a', 'b', 'c', 'd'], listed)
    splits = {Path(pair.image).stem: pair.split for pair in labels.pairs}
    assert splits == dict(a='train', b='val', c='train', d='train')


@pytest.mark.parametrize('forms', ['NFC NFD', 'NFD NFC'])
def test_accents_of_image_sets_are_in_any_form(forms: str, tmp_path: Path) -> None:
    of_file, of_list = (normalize(form, 'caf\u00e9') for form in forms.split())
    listed = {'Segmentation/train': 'a', 'Segmentation/val': of_list}
    labels = write_lists(tmp_path, ['a', of_file], listed)
    splits = {Path(pair.image).stem: pair.split for pair in labels.pairs}
    assert splits == {'a': 'train', of_file: 'val'}


def test_mask_of_the_very_name_comes_before_a_word_after_it(tmp_path: Path) -> None:
    write(tmp_path, TRUTH)
    write_all(tmp_path, ['masks/a_L.png'], TRUTH)
    labels = labels_of(tmp_path)
    assert 'masks/a.png' in {pair.label_map for pair in labels.pairs}
    (found,) = labels.problems
    assert (found.kind, found.item) == ('mask without an image', 'masks/a_L.png')


@pytest.mark.parametrize(
    'files, pairs',
    [
        (['images/1_L.png', 'images/2_L.png', 'masks/1_L.png', 'masks/2_L.png'],
         ['images/1_L.png masks/1_L.png', 'images/2_L.png masks/2_L.png']),
        (['images/1_L.png', 'images/2_L.png', 'masks/1_L_gt.png', 'masks/2_L_gt.png'],
         ['images/1_L.png masks/1_L_gt.png', 'images/2_L.png masks/2_L_gt.png']),
        (['1_L.png', '2-label.png', '1_L_mask.png', '2-label_mask.png'],
         ['1_L.png 1_L_mask.png', '2-label.png 2-label_mask.png']),
        (['images/1.png', 'images/1_seg.png', 'masks/1.png', 'masks/1_seg.png'],
         ['images/1.png masks/1.png', 'images/1_seg.png masks/1_seg.png']),
        (['1.png', '1_L.png', '2.png', '2_L.png'], ['1.png 1_L.png', '2.png 2_L.png']),
    ],
)  # fmt: skip
def test_photos_may_be_named_as_masks_are(
    files: list[str], pairs: list[str], tmp_path: Path
) -> None:
    write_all(tmp_path, files, TRUTH)
    labels = labels_of(tmp_path)
    assert labels.problems == []
    assert [f'{pair.image} {pair.label_map}' for pair in labels.pairs] == pairs


def test_photo_without_a_mask_of_its_own_does_not_take_a_copied_mask(tmp_path: Path) -> None:
    write(tmp_path, TRUTH)
    write_all(tmp_path, ['images/e.png', 'images/e_gt.png', 'masks/e_gt.png'], TRUTH)
    (found,) = labels_of(tmp_path).problems
    assert (found.kind, found.item) == ('image with several masks', 'images/e.png')


def test_masks_of_grey_and_opacity_are_written_as_one_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path / 'data', TRUTH, 'other\ndisc')
    Image.fromarray(TRUTH).convert('LA').save(tmp_path / 'data/masks/b.png')
    labels = labels_of(tmp_path / 'data')
    assert labels.problems == [] and labels.classes == ('other', 'disc')
    assert np.array_equal(map_of(labels, tmp_path / 'run'), TRUTH)
    monkeypatch.chdir(tmp_path)
    assert main(['verify', 'data', '--head', 'upernet']) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    'mask, suffix, listed, is_binary',
    [
        (TRUTH * 255, '.jpg', '', True),
        (TRUTH * 255, '.jpeg', 'background\npolyp', True),
        (grey(TRUTH * 255), '.jpg', '', True),
        (TRUTH * 9, '.jpg', 'a\nb\nc\nd\ne\nf\ng\nh\ni\nj', False),
        (COLUMNS.astype(np.uint8) * 3, '.png', '', False),
    ],
)
def test_values_that_a_file_has_mixed_are_no_classes(
    mask: np.ndarray, suffix: str, listed: str, is_binary: bool, tmp_path: Path
) -> None:
    write(tmp_path, mask, listed, suffix)
    with pytest.raises(BrokenLabels) as caught:
        labels_of(tmp_path)
    problems = caught.value.problems
    assert [(p.kind, p.item) for p in problems] == [
        ('mask with mixed colours', f'masks/{name}{suffix}') for name in 'abcd'
    ]
    assert all(('split them at 128' in p.detail) == is_binary for p in problems)


@pytest.mark.parametrize('mask', [TRUTH * 0, (COLUMNS // 32).astype(np.uint8) * 255])
def test_jpeg_that_kept_its_values_is_a_mask(mask: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path / 'data', mask, 'background\npolyp', '.jpg')
    assert labels_of(tmp_path / 'data').problems == []


@pytest.mark.parametrize('value', [0.5, np.nan, np.inf, 2.0])
def test_values_between_whole_numbers_are_no_classes(value: float, tmp_path: Path) -> None:
    write(tmp_path, TRUTH.astype(np.float32), 'background\npolyp\ntool', '.tif')
    mask = TRUTH.astype(np.float32)
    mask[0, 0] = value
    Image.fromarray(mask).save(tmp_path / 'masks/b.tif')
    labels = labels_of(tmp_path)
    if value == 2:
        assert labels.problems == [] and labels.classes == ('background', 'polyp', 'tool')
        return
    (found,) = labels.problems
    assert (found.kind, found.item) == ('unreadable image or mask', 'masks/b.tif')
    assert found.detail == f'values that are no whole numbers, such as {value:g}'


@pytest.mark.parametrize('value', [0, 7, 255])
def test_masks_of_a_single_value_are_told(
    value: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path, TRUTH * 0 + value)
    labels = labels_of(tmp_path)
    if value == 255:
        assert [p.kind for p in labels.problems] == ['nothing left to train on']
        assert main(['verify', str(tmp_path)]) == 1
        assert 'all pixels of the 4 masks are ignored' in capsys.readouterr().out
    else:
        words = f'the masks have nothing but class_{value}, of which nothing can be learnt'
        assert labels.problems == [] and words in labels.notes


def test_many_values_are_classes_where_a_list_names_them(tmp_path: Path) -> None:
    names = [f'class_{number}' for number in range(WIDTH)]
    write(tmp_path, COLUMNS.astype(np.uint8), '\n'.join(names))
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.classes == tuple(names)


@pytest.mark.parametrize('count', [255, 256, 300])
def test_more_classes_than_a_label_map_holds(count: int, tmp_path: Path) -> None:
    write(tmp_path / 'data', TRUTH, '\n'.join(f'class_{number}' for number in range(count)))
    if count == 255:
        assert labels_of(tmp_path / 'data').problems == []
    else:
        found = labels_of(tmp_path / 'data').problems
        assert [p.kind for p in found] == ['too many classes']
        assert f'{count} classes, but a label map holds 255' in found[0].detail


RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)
BLACK = (0, 0, 0)
GREY = (9, 9, 9)
CLASSES_WITH_COLOURS = 'background,0,0,0\npolyp,255,0,0\ntool,0,255,0'
LABELS = TRUTH + (COLUMNS > 50).astype(np.uint8) * 2
"""A disc of 1, a stripe of 2, around them 0."""


def write_with_palettes(
    root: Path, labels: np.ndarray, orders: Sequence[Sequence[tuple[int, int, int]]], listed: str
) -> None:
    """Writes masks of the classes black, red and green, each with its own order of these."""
    write(root, labels, listed)
    for name, order in zip('abcd', orders, strict=False):
        values = np.array([order.index(c) for c in (BLACK, RED, GREEN)], np.uint8)
        picture = Image.fromarray(np.where(labels < 3, values[np.minimum(labels, 2)], labels))
        picture.putpalette([part for colour in order for part in colour])
        picture.save(root / 'masks' / f'{name}.png')


IN_ORDER = (BLACK, RED, GREEN)
IN_OTHERS = [(RED, GREEN, BLACK), (GREEN, BLACK, RED), IN_ORDER, (GREEN, RED, BLACK)]


def maps_of(labels: LabelMaps, run: Path) -> list[np.ndarray]:
    (layout, *_), _ = lay_out(labels, run).values()
    files = (labels.root / layout.label_maps).rglob(f'*{layout.map_suffix}')
    return [np.asarray(Image.open(file)) for file in files]


@pytest.mark.parametrize('orders', [IN_OTHERS, [IN_OTHERS[0]] * 4])
def test_listed_colours_of_a_palette_in_any_order(
    orders: list[tuple[tuple[int, int, int], ...]], tmp_path: Path
) -> None:
    write_with_palettes(tmp_path / 'data', LABELS, orders, CLASSES_WITH_COLOURS)
    labels = labels_of(tmp_path / 'data')
    assert labels.problems == [] and labels.classes == ('background', 'polyp', 'tool')
    maps = maps_of(labels, tmp_path / 'run')
    assert len(maps) == 4 and all(np.array_equal(one, LABELS) for one in maps)


def test_border_of_255_in_a_palette_stays_ignored(tmp_path: Path) -> None:
    bordered = LABELS.copy()
    bordered[19:21] = 255
    orders = [(*order, *[GREY] * 253) for order in IN_OTHERS]
    write_with_palettes(tmp_path / 'data', bordered, orders, CLASSES_WITH_COLOURS)
    labels = labels_of(tmp_path / 'data')
    assert labels.problems == [] and labels.classes == ('background', 'polyp', 'tool')
    assert all(np.array_equal(one, bordered) for one in maps_of(labels, tmp_path / 'run'))


def test_shades_of_palettes_and_of_grey_masks_are_the_same(tmp_path: Path) -> None:
    write(tmp_path / 'data', TRUTH * 255, BLACK_AND_WHITE)
    for name, order in (('a', (BLACK, WHITE)), ('b', (WHITE, BLACK))):
        picture = Image.fromarray(TRUTH if order[0] == BLACK else 1 - TRUTH)
        picture.putpalette([part for colour in order for part in colour])
        picture.save(tmp_path / 'data/masks' / f'{name}.png')
    labels = labels_of(tmp_path / 'data')
    assert labels.problems == [] and labels.classes == ('background', 'polyp')
    assert all(np.array_equal(one, TRUTH) for one in maps_of(labels, tmp_path / 'run'))


@pytest.mark.parametrize('listed', ['', 'background\npolyp\ntool', CLASSES_WITH_COLOURS])
def test_palette_that_is_the_same_in_all_files_leaves_the_ids(listed: str, tmp_path: Path) -> None:
    write_with_palettes(tmp_path / 'data', LABELS, [IN_ORDER] * 4, listed)
    labels = labels_of(tmp_path / 'data')
    assert labels.problems == [] and len(labels.classes) == 3
    lay_out(labels, tmp_path / 'run')
    assert not (tmp_path / 'run/label_maps').exists()


@pytest.mark.parametrize(
    'listed, classes, words',
    [
        ('', None, '"name,red,green,blue", or "name value" if'),
        ('background\npolyp\ntool', None, 'into classes.txt or the file of --classes'),
        (CLASSES_WITH_COLOURS, ['background', 'polyp', 'tool'], 'the file of --classes'),
        ('background,0,0,0\npolyp,9,9,9\ntool,8,8,8', None, 'no #00ff00, #ff0000; add them'),
    ],
)
def test_palettes_that_differ_are_told(
    listed: str, classes: Sequence[str] | None, words: str, tmp_path: Path
) -> None:
    write_with_palettes(tmp_path, LABELS, [IN_ORDER] * 3 + [IN_OTHERS[0]], listed)
    (found,) = labels_of(tmp_path, classes).problems
    assert (found.kind, found.item) == ('mask with another palette', 'masks/d.png')
    assert '0 is #ff0000, but #000000 in masks/a.png' in found.detail and words in found.detail


def test_palettes_say_nothing_where_a_list_has_values(tmp_path: Path) -> None:
    orders = [(BLACK, GREEN, RED)] * 3 + [(RED, BLACK, GREEN)]
    write_with_palettes(tmp_path, LABELS, orders, 'background 0\npolyp 2\ntool 1')
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.classes == ('background', 'polyp', 'tool')
    assert labels.values == {0: 0, 2: 1, 1: 2}


OTHER_ORDER = (GREEN, GREY, BLACK, RED)
"""With a colour that no list has under the value of a listed class."""


def test_a_stray_colour_does_not_turn_colours_into_values(tmp_path: Path) -> None:
    write_with_palettes(tmp_path / 'data', LABELS, [OTHER_ORDER] * 4, CLASSES_WITH_COLOURS)
    file = tmp_path / 'data/masks/c.png'
    picture = Image.open(file)
    picture.putpixel((0, 0), 1)
    picture.save(file)
    labels = labels_of(tmp_path / 'data')
    (found,) = labels.problems
    assert (found.kind, found.item) == ('mask with colours of no class', 'masks/c.png')
    assert found.detail.startswith('#090909; the classes are #000000 background, #ff0000')


@pytest.mark.parametrize('value', [0, 2, 3])
def test_ignored_value_of_a_palette_in_another_order_is_its_colour(
    value: int, tmp_path: Path
) -> None:
    write_with_palettes(tmp_path / 'data', LABELS, [OTHER_ORDER] * 4, CLASSES_WITH_COLOURS)
    labels = labels_of(tmp_path / 'data', ignored=[value])
    away = IN_ORDER.index(OTHER_ORDER[value])
    names = ['background', 'polyp', 'tool']
    del names[away]
    assert labels.problems == [] and labels.classes == tuple(names)
    expected = np.where(LABELS == away, 255, LABELS - (LABELS > away))
    assert all(np.array_equal(one, expected) for one in maps_of(labels, tmp_path / 'run'))


def test_ignored_value_that_is_another_class_in_each_mask_is_refused(tmp_path: Path) -> None:
    write_with_palettes(tmp_path, LABELS, IN_OTHERS, CLASSES_WITH_COLOURS)
    with pytest.raises(UserError, match='--ignore-label 1: the palettes of the masks differ'):
        labels_of(tmp_path, ignored=[1])


def test_palette_that_shares_few_colours_with_the_list_leaves_the_ids(tmp_path: Path) -> None:
    """A list of colours to draw classes in, and black as the colour of value 0."""
    listed = 'polyp,200,0,0\ntool,0,200,0\nvoid,0,0,0'
    write_with_palettes(tmp_path, TRUTH, [IN_ORDER] * 4, listed)
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.classes == ('polyp', 'tool')
    assert labels.values is None


@pytest.mark.parametrize('listed', [CLASSES_WITH_COLOURS, '', 'polyp\ntool'])
def test_ignored_values_of_coloured_masks_are_their_greys(listed: str, tmp_path: Path) -> None:
    write(tmp_path / 'data', np.array(IN_ORDER, np.uint8)[LABELS], listed)
    labels = labels_of(tmp_path / 'data', ignored=[0])
    assert labels.problems == [] and len(labels.classes) == 2
    drawn = map_of(labels, tmp_path / 'run')
    assert set(np.unique(drawn)) == {0, 1, 255} and np.array_equal(drawn == 255, LABELS == 0)
    with pytest.raises(UserError, match='--ignore-label 300: the masks have colours; 0 to 255'):
        labels_of(tmp_path / 'data', ignored=[300])


@pytest.mark.parametrize('limit', [HEIGHT * WIDTH // 4, HEIGHT * WIDTH - 1])
@pytest.mark.parametrize('orders', [IN_OTHERS, [IN_ORDER] * 4])
def test_masks_above_pillows_limit_are_read_without_a_warning(
    limit: int,
    orders: Sequence[Sequence[tuple[int, int, int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_with_palettes(tmp_path / 'data', LABELS, orders, CLASSES_WITH_COLOURS)
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter('error')
        patch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
        labels = labels_of(tmp_path / 'data')
        assert labels.problems == []
        lay_out(labels, tmp_path / 'run')
        assert Image.MAX_IMAGE_PIXELS == limit
    assert all(np.array_equal(one, LABELS) for one in maps_of(labels, tmp_path / 'run'))


def test_masks_of_cvats_camvid(tmp_path: Path) -> None:
    for folder in ('default', 'defaultannot'):
        (tmp_path / folder).mkdir()
    for name in 'abcd':
        Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / f'default/{name}.jpg')
        Image.fromarray(blue(TRUTH * 200)).save(tmp_path / f'defaultannot/{name}.png')
    (tmp_path / 'label_colors.txt').write_text('0 0 0 background\n0 0 200 polyp\n')
    labels = labels_of(tmp_path)
    assert labels.problems == [] and labels.classes == ('background', 'polyp')
    assert [pair.label_map for pair in labels.pairs] == [f'defaultannot/{n}.png' for n in 'abcd']


@pytest.mark.parametrize('name', [' a', 'a ', 'a\nb', '\u3000a'])
@pytest.mark.parametrize('is_listed', [True, False])
def test_names_that_a_list_cannot_hold_are_told(
    name: str, is_listed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TRUTH)
    for split in () if is_listed else ('train', 'val'):
        for folder in ('images', 'masks'):
            shutil.copytree(tmp_path / folder, tmp_path / split / folder)
    for folder in ('images', 'masks'):
        inside = tmp_path / folder
        if not is_listed:
            shutil.rmtree(inside)
            inside = tmp_path / 'train' / folder
        (inside / 'a.png').rename(inside / f'{name}.png')
    code = main(['verify', str(tmp_path), '--masks'])
    told = capsys.readouterr().out
    if is_listed:
        assert code == 1 and '1 things are wrong' in told
        assert 'name that a list of images cannot hold (1):' in told
    else:
        assert code == 0, told


@pytest.mark.parametrize('kinds', [['labelIds'], ['labelTrainIds'], ['labelIds', 'labelTrainIds']])
@pytest.mark.parametrize('is_tested', [True, False])
def test_folders_of_cityscapes(kinds: list[str], is_tested: bool, tmp_path: Path) -> None:
    ids = np.where(TRUTH, 26, 7).astype(np.uint8)
    ids[:3] = 4  # void
    trained = np.where(TRUTH, 13, 0).astype(np.uint8)
    trained[:3] = 255
    for split in ('train', 'val', 'test'):
        for city in ('aachen', 'bochum'):
            start = f'{city}_000000_000019'
            images, masks = (tmp_path / f / split / city for f in ('leftImg8bit', 'gtFine'))
            images.mkdir(parents=True)
            masks.mkdir(parents=True)
            Image.new('RGB', (WIDTH, HEIGHT)).save(images / f'{start}_leftImg8bit.png')
            pictures = dict(labelIds=ids, labelTrainIds=trained)
            if split == 'test' and not is_tested:
                pictures = dict(labelIds=ids * 0, labelTrainIds=trained * 0 + 255)
            for kind in kinds:
                Image.fromarray(pictures[kind]).save(masks / f'{start}_gtFine_{kind}.png')
            Image.fromarray(grey(ids)).save(masks / f'{start}_gtFine_color.png')
            instances = ids.astype(np.uint16) * 1000
            Image.fromarray(instances).save(masks / f'{start}_gtFine_instanceIds.png')
    labels = labels_of(tmp_path)
    assert labels.problems == []
    assert [pair.split for pair in labels.pairs] == (
        ['test'] * 2 * is_tested + ['train'] * 2 + ['val'] * 2
    )
    assert all(pair.label_map.endswith(f'_gtFine_{kinds[-1]}.png') for pair in labels.pairs)
    assert len(labels.classes) == 19
    assert [labels.classes[number] for number in (0, 13, 18)] == ['road', 'car', 'bicycle']
    assert any('2 for testing whose masks are' in note for note in labels.notes) != is_tested
    layout = lay_out(labels, tmp_path / 'run')['train'][0]
    maps = sorted((tmp_path / layout.label_maps).rglob(f'*aachen*{layout.map_suffix}'))
    found = [np.asarray(Image.open(file)) for file in maps]
    assert any(np.array_equal(one, trained) for one in found)


@pytest.mark.parametrize(
    'images, masks, ending',
    [
        ('data', 'labels', ''),  # FiftyOne
        ('images', 'annotations/trimaps', ''),  # Oxford's pets
        ('Task1-2_Training_Input', 'Task1_Training_GroundTruth', '_segmentation'),  # ISIC
    ],
)
@pytest.mark.parametrize('is_unique', [True, False])
def test_masks_of_folders_that_have_nothing_in_common(
    images: str, masks: str, ending: str, is_unique: bool, tmp_path: Path
) -> None:
    for folder in (images, masks, 'more'):
        (tmp_path / folder).mkdir(parents=True)
    for name in 'abcd':
        Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / images / f'{name}.png')
        Image.fromarray(TRUTH).save(tmp_path / masks / f'{name}{ending}.png')
    if not is_unique:
        Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'more/a.png')
        with pytest.raises(UserError, match='no known labels'):
            labels_of(tmp_path)
        return
    labels = labels_of(tmp_path)
    assert labels.problems == []
    assert [(p.image, p.label_map) for p in labels.pairs] == [
        (f'{images}/{name}.png', f'{masks}/{name}{ending}.png') for name in 'abcd'
    ]


def test_masks_of_another_split_are_not_those_of_an_image(tmp_path: Path) -> None:
    for folder in ('train/images', 'val/masks'):
        (tmp_path / folder).mkdir(parents=True)
    for name in 'abcd':
        Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / f'train/images/{name}.png')
        Image.fromarray(TRUTH).save(tmp_path / f'val/masks/{name}.png')
    with pytest.raises(UserError, match='no known labels'):
        labels_of(tmp_path)
