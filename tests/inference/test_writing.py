"""What is written of predictions, whatever model they are of."""

import json
import os
import re
import resource
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from attnpool_backbones.command_line import UserError
from attnpool_backbones.inference.prediction import Detections
from attnpool_backbones.inference.writing import Outputs

IMAGE = np.zeros((24, 32, 3), np.uint8)


def found(name: str, objects: int = 1) -> Detections:
    boxes = np.tile(np.array([1, 2, 5, 6], np.float32), (objects, 1))
    return Detections(
        name, *IMAGE.shape[:2], ['a'], boxes, np.full(objects, 0.9, np.float32),
        np.zeros(objects, int),
    )  # fmt: skip


@pytest.mark.parametrize('name', ['/x/a.jpg', '../a.jpg', 'b/../../../a.jpg'])
def test_names_do_not_lead_out_of_the_folder(tmp_path, name):
    outputs = Outputs(tmp_path / 'out', ['pictures'], True, ['a'])
    with pytest.raises(UserError, match='leads out of the folder'):
        outputs.write(IMAGE, found(name))
    assert not list(tmp_path.rglob('*.jpg'))


def test_no_picture_takes_the_place_of_another(tmp_path):
    outputs = Outputs(tmp_path, ['pictures'], True, ['a'])
    for name in ('a.jpg', 'a.png.jpg', 'a.png'):
        outputs.write(IMAGE, found(name))
    assert len(list(tmp_path.rglob('*.jpg'))) == 3


def coco_numbers(tmp_path, names, listed=None, root='', **more):
    """Returns image -> number in coco_results.json, and what was left out."""
    annotations = None
    if listed is not None:
        annotations = tmp_path / 'annotations.json'
        images = [dict(file_name=name, id=number) for name, number in listed.items()]
        annotations.write_text(json.dumps(dict(images=images, categories=[dict(name='a', id=7)])))
    outputs = Outputs(
        tmp_path / 'out', ['coco'], True, ['a'], annotations=annotations and str(annotations),
        files={tmp_path / root / name: name for name in names}, **more,
    )  # fmt: skip
    # so many objects tell which image a result is of
    for count, name in enumerate(names, 1):
        outputs.write(IMAGE, found(name, count))
    outputs.close()
    results = [r['image_id'] for r in json.loads((tmp_path / 'out/coco_results.json').read_text())]
    found_numbers = {names[results.count(number) - 1]: number for number in results}
    return found_numbers, outputs.unlisted


CAMERAS = {'cam1/0001.jpg': 11, 'cam2/0001.jpg': 22, 'cam2/0002.jpg': 33}


@pytest.mark.parametrize(
    'names, root, listed, numbers, unlisted',
    [
        (['0001.jpg'], 'images/cam1', CAMERAS, {'0001.jpg': 11}, []),
        (['0001.jpg'], 'images/cam2', CAMERAS, {'0001.jpg': 22}, []),
        (['cam1/0001.jpg', 'cam2/0001.jpg'], 'images', CAMERAS,
         {'cam1/0001.jpg': 11, 'cam2/0001.jpg': 22}, []),
        # a name that several images have, or none
        (['0001.jpg', '0002.jpg'], 'flat', CAMERAS, {'0002.jpg': 33}, ['0001.jpg']),
        (['5.jpg', '0002.jpg'], 'images/cam2', CAMERAS, {'0002.jpg': 33}, ['5.jpg']),
        # two images that claim one number
        (['a/1.jpg', 'b/1.jpg'], 'images', {'a/1.jpg': 5}, {'a/1.jpg': 5}, ['b/1.jpg']),
        (['a/1.jpg', 'b/1.jpg'], 'images', {'1.jpg': 5}, {}, ['a/1.jpg', 'b/1.jpg']),
        (['1.jpg'], 'elsewhere', {'./images/1.jpg': 5}, {'1.jpg': 5}, []),
    ],
)  # fmt: skip
def test_coco_results_have_the_number_of_their_own_image(
    tmp_path, names, root, listed, numbers, unlisted
):
    assert coco_numbers(tmp_path, names, listed, root) == (numbers, unlisted)


@pytest.mark.parametrize(
    'names, numbers',
    [
        (['0001.jpg', '0012.jpg'], [1, 12]),
        (['0001.jpg', 'x.jpg'], [1, 'x.jpg']),
        (['a/1.jpg', 'b/1.jpg', '2.jpg'], ['a/1.jpg', 'b/1.jpg', '2.jpg']),
        (['01.jpg', '1.jpg'], ['01.jpg', '1.jpg']),
        (['²3.jpg'], ['²3.jpg']),
        (['000000', '000001'], [0, 1]),
    ],
)
def test_coco_results_without_annotations_keep_images_apart(tmp_path, names, numbers):
    found_numbers, unlisted = coco_numbers(tmp_path, names)
    assert found_numbers == dict(zip(names, numbers, strict=True)) and unlisted == []


def frames_and_rate(path) -> tuple[int, float]:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count, capture.get(cv2.CAP_PROP_FPS)


@pytest.mark.parametrize(
    'rate, written',
    [(10, 10), (23.976, 23.976), (29.97, 29.97), (119.88, 119.88), (71.928, 71.93),
     (239.982, 239.98), (240.02, 240.02), (1000, 25), (90000, 25), (0.2, 25),
     (float('nan'), 25), (float('inf'), 25)],
)  # fmt: skip
def test_videos_of_odd_rates_are_written(tmp_path, rate, written):
    outputs = Outputs(tmp_path, ['pictures'], True, ['a'], rate)
    for number in range(3):
        outputs.write(IMAGE, found(f'{number:06d}'))
    assert outputs.close() == [tmp_path / 'video.mp4']
    assert frames_and_rate(tmp_path / 'video.mp4') == (3, pytest.approx(written, abs=2e-3))


def test_frames_of_another_size_are_not_lost(tmp_path):
    outputs = Outputs(tmp_path, ['pictures'], True, ['a'], 10)
    for image in (IMAGE, IMAGE[:12, :20], IMAGE):
        outputs.write(image, found('000000'))
    outputs.close()
    assert frames_and_rate(tmp_path / 'video.mp4')[0] == 3


def test_a_video_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / 'video.mp4').mkdir()
    outputs = Outputs(tmp_path, ['pictures'], True, ['a'], 10)
    with pytest.raises(UserError, match=r'video\.mp4: a video .* cannot be written'):
        outputs.write(IMAGE, found('000000'))
    assert outputs.close() == []


def test_only_what_a_run_wrote_is_told(tmp_path):
    first = Outputs(tmp_path, ['pictures', 'json', 'coco'], True, ['a'])
    first.write(IMAGE, found('a.jpg'))
    names = ['pictures', 'predictions.jsonl', 'coco_results.json']
    assert first.close() == [tmp_path / name for name in names]
    second = Outputs(tmp_path, ['json'], True, ['a'])
    second.write(IMAGE, found('a.jpg'))
    assert second.close() == [tmp_path / 'predictions.jsonl']
    # results of an earlier run are not replaced by none
    content = (tmp_path / 'coco_results.json').read_bytes()
    assert Outputs(tmp_path, ['coco'], True, ['a']).close() == []
    assert (tmp_path / 'coco_results.json').read_bytes() == content


@contextmanager
def largest_file(size):
    """Ends files there as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_of_an_earlier_run_stay_until_the_new_ones_are_whole(tmp_path):
    names = ['predictions.jsonl', 'coco_results.json']
    for name in names:
        (tmp_path / name).write_text('old')
    stale = tmp_path / '.predictions.jsonl.gone-0-00000000.attnpool-part'
    stale.touch()
    os.utime(stale, (0, 0))
    outputs = Outputs(tmp_path, ['json', 'coco'], True, ['a'])
    outputs.write(IMAGE, found('a.jpg'))
    assert [(tmp_path / name).read_text() for name in names] == ['old', 'old']
    assert outputs.close() == outputs.replaced == [tmp_path / name for name in names]
    assert [len(json.loads((tmp_path / name).read_text())) for name in names] == [4, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_full_disk_cuts_no_line(tmp_path):
    outputs = Outputs(tmp_path, ['json'], True, ['a'])
    written = 0
    with largest_file(1000):
        with pytest.raises(OSError, match='too large'):
            for written in range(100):
                outputs.write(IMAGE, found(f'{written}.jpg'))
        outputs.close()
    lines = (tmp_path / 'predictions.jsonl').read_text().splitlines()
    assert [json.loads(line)['image'] for line in lines] == [f'{i}.jpg' for i in range(written)]
    assert written > 1


def test_a_full_disk_leaves_the_picture_of_an_earlier_run(tmp_path):
    picture = tmp_path / 'pictures/a.jpg'
    picture.parent.mkdir()
    picture.write_bytes(b'old')
    outputs = Outputs(tmp_path, ['pictures'], True, ['a'])
    with largest_file(100), pytest.raises(OSError, match='too large'):
        outputs.write(IMAGE, found('a.jpg'))
    assert picture.read_bytes() == b'old' and list(picture.parent.iterdir()) == [picture]


def test_a_video_on_a_full_disk_is_told(tmp_path):
    outputs = Outputs(tmp_path, ['pictures'], True, ['a'], 10)
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    with largest_file(1000):
        for number in range(20):
            outputs.write(noise, found(f'{number:06d}'))
        assert outputs.close() == []
    (fault,) = outputs.unwritten
    assert re.search(r'video\.mp4: \d+ of 20 frames can be read back', fault)
