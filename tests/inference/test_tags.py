"""What an image-level head says reaches files and pictures."""

import json

import cv2
import numpy as np
import pytest
import torch

from attnpool_backbones.cli import main
from attnpool_backbones.command_line import UserError
from attnpool_backbones.dense_models.image_tags import make_tags
from attnpool_backbones.inference import load
from attnpool_backbones.inference.drawing import draw, draw_class_maps
from attnpool_backbones.inference.tags import Tags, tags_of
from attnpool_backbones.inference.writing import Outputs

both = pytest.mark.parametrize('run', ['tagged_detector', 'tagged_segmentor'])


@both
@torch.no_grad()
def test_tags_are_those_of_the_model(run, scenes, tmp_path, request):
    model = load(str(request.getfixturevalue(run)), device='cpu')
    image = sorted((scenes / 'images' / 'validation').glob('*.png'))[0]
    (prediction,) = model(str(image))
    data = model.pipeline(dict(img=cv2.imread(str(image)), img_id=0))
    (sample,) = model.model.test_step(
        dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
    )
    expected = sample.pred_tags
    np.testing.assert_allclose(prediction.tags.scores, expected.scores.numpy(), rtol=1e-5)
    np.testing.assert_allclose(prediction.tags.maps, expected.maps.numpy(), rtol=1e-4, atol=1e-7)
    assert prediction.tags.cell == pytest.approx(expected.cell)
    told = prediction.to_dict()['tags']
    assert set(told) == set(model.classes) and list(told.values()) == sorted(told.values())[::-1]
    (few,) = model(str(image), classes=model.classes[2:4])
    assert set(few.to_dict()['tags']) == set(model.classes[2:4])
    outputs = Outputs(
        tmp_path, ['json', 'class-maps'], model.is_detector, model.classes, has_tags=True
    )
    outputs.write(cv2.imread(str(image)), prediction)
    written = outputs.close()
    assert json.loads(written[0].read_text())['tags'] == told
    drawn = cv2.imread(str(next(written[1].glob('*.jpg'))))
    assert drawn.shape == cv2.imread(str(image)).shape


def test_models_without_a_head_have_no_tags(detector, scenes, tmp_path):
    model = load(str(detector), device='cpu')
    (prediction, *_) = model(str(scenes / 'images' / 'validation'))
    assert prediction.tags is None and 'tags' not in prediction.to_dict()
    with pytest.raises(UserError, match='class-maps: .* image-level head'):
        Outputs(tmp_path, ['class-maps'], True, model.classes, has_tags=model.has_tags)


@both
def test_slices_are_put_together(run, scenes, tmp_path, request):
    pytest.importorskip('sahi')
    model = load(str(request.getfixturevalue(run)), device='cpu')
    image = cv2.imread(str(sorted((scenes / 'images' / 'validation').glob('*.png'))[0]))
    large = tmp_path / 'large.png'
    cv2.imwrite(str(large), np.tile(image, (2, 2, 1)))
    (prediction,) = model(str(large), side=96)
    sides = np.array(prediction.tags.maps.shape[1:]) * prediction.tags.cell
    np.testing.assert_allclose(sides, 2 * np.array(image.shape[:2]), rtol=0.15)


def test_an_image_has_what_a_slice_has():
    parts = [
        make_tags(torch.tensor([0.0, 9.0]), torch.full((2, 2, 2), 0.25), (8, 8)),
        make_tags(torch.tensor([4.0, -9.0]), torch.full((2, 2, 2), 0.25), (8, 8)),
    ]
    tags = tags_of(parts, [(0, 0), (16, 0)], 16, 32, hidden=(1,))
    assert tags.scores == pytest.approx(torch.tensor([4.0, 9.0]).sigmoid().numpy())
    assert tags.maps.shape == (2, 2, 4) and tags.to_dict('ab') == {'a': 0.98201}


@pytest.mark.parametrize('left', [0, 1536, 3360])
def test_maps_of_slices_are_where_the_slices_are(left):
    # slices of 640x600 as 853x800: the last row and column of the maps lie partly in padding
    corners = [(x, 0) for x in (*range(0, 3360, 512), 3360)]
    parts = []
    for corner in corners:
        maps = torch.zeros(1, 25, 27)
        maps[0, 12, 20] = corner == (left, 0)
        parts.append(make_tags(torch.tensor([2.0]), maps, (24.0, 24.0)))
    tags = tags_of(parts, corners, 600, 4000)
    row, column = np.unravel_index(tags.maps[0].argmax(), tags.maps.shape[1:])
    place = (np.array([row, column]) + 0.5) * tags.cell
    assert place == pytest.approx([12.5 * 24, left + 20.5 * 24], abs=12)


def test_class_maps_are_drawn_where_they_are():
    maps = np.zeros((3, 2, 4), np.float32)
    maps[0, :, :2], maps[1, :, 2:], maps[2] = 1, 1, 5
    image = np.full((160, 320, 3), 100, np.uint8)
    tags = Tags(np.array([0.9, 0.6, 0.4], np.float32), maps, (80.0, 80.0))
    assert tags.present() == [0, 1]
    drawn = draw_class_maps(image, tags, ['a', 'b', 'c'])
    left, right = drawn[100, 20], drawn[100, 300]
    assert (image == 100).all() and (left != right).any() and (left != 100).any()
    grey = Tags(tags.scores, maps, (80.0, 80.0), hidden=(0, 1, 2))
    assert (draw_class_maps(image, grey, ['a', 'b', 'c']) == 100).all()
    # the surest class is drawn where none is sure
    assert Tags(tags.scores / 10, maps, (80.0, 80.0)).present() == [0]


def test_a_model_of_tags_alone_writes_them(tagger, scenes, tmp_path):
    images = scenes / 'images' / 'validation'
    model = load(str(tagger), device='cpu')
    assert model.is_tagger and model.has_tags
    assert main(['predict', str(tagger), str(images), '--out', str(tmp_path / 'out'), '--device',
                 'cpu', '--save', 'json', 'pictures', 'class-maps', '--classes',
                 *model.classes[2:5]]) == 0  # fmt: skip
    lines = (tmp_path / 'out/predictions.jsonl').read_text().splitlines()
    found = list(model(str(images), at_once=2, batch=2))
    assert len(lines) == len(found) == 4
    for line, prediction in zip(map(json.loads, lines), found, strict=True):
        told = {k: v for k, v in prediction.to_dict()['tags'].items() if k in model.classes[2:5]}
        assert line['image'] == prediction.name and line['tags'] == pytest.approx(told, abs=1e-4)
        image = cv2.imread(str(images / prediction.name))
        drawn = draw(image, prediction)
        assert (drawn != image).any() and drawn.shape == image.shape
        # names are written in the corner, the rest is left as it is
        assert (drawn[:, -4:] == image[:, -4:]).all()
    for kind in ('pictures', 'class_maps'):
        assert len(list((tmp_path / 'out' / kind).glob('*.jpg'))) == 4
    for kind in ('maps', 'coco'):
        with pytest.raises(UserError, match=f'--save {kind}: .* this is an ImageTagger'):
            Outputs(tmp_path, [kind], model.is_detector, model.classes, is_tagger=True)
