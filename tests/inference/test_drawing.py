"""Drawings by OpenCV's tables have the pixels that the formulas say."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from attnpool_backbones.class_colours import distinct_colours
from attnpool_backbones.inference.drawing import draw_boxes, draw_label_map
from attnpool_backbones.inference.prediction import Detections

HEIGHT, WIDTH, CLASSES = 37, 50, 4


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def random_masks(rng: np.random.Generator) -> np.ndarray:
    masks = rng.random((4, HEIGHT, WIDTH)) < 0.4
    masks[0, :, 20:] = masks[0, :5] = False
    masks[1] = False
    masks[2] = True
    return masks


def test_a_mask_is_half_image_and_half_colour(image, rng):
    masks, labels = random_masks(rng), np.array([3, 0, 1, 3])
    none = np.zeros((0, 4))
    drawn = draw_boxes(image, none, labels[:0], [], CLASSES, masks[:0])
    assert np.array_equal(drawn, image)
    expected = image.copy()
    for mask, label in zip(masks, labels, strict=True):
        colour = np.array(distinct_colours(CLASSES)[label][::-1])
        expected[mask] = (expected[mask] * 0.5 + colour * 0.5).astype(np.uint8)
    # boxes outside of the image, so that masks alone are seen
    away = np.full((4, 4), 1000.0)
    texts = [''] * 4
    drawn = draw_boxes(image, away, labels, texts, CLASSES, masks)
    assert np.array_equal(drawn[:20, :30], expected[:20, :30])


@pytest.mark.parametrize('hidden', [(), (1,)])
def test_labels_without_a_colour_leave_the_image(image, rng, hidden):
    palette = rng.integers(0, 256, (CLASSES, 3), np.uint8)
    label_map = rng.integers(0, CLASSES + 1, (HEIGHT, WIDTH)).astype(np.uint8)
    label_map[0] = 255
    drawn = draw_label_map(image, label_map, palette, hidden)
    shown = (label_map < CLASSES) & ~np.isin(label_map, hidden)
    assert np.array_equal(drawn[~shown], image[~shown])
    mixed = cv2.addWeighted(image[shown], 0.45, palette[label_map[shown]][:, ::-1], 0.55, 0)
    assert np.array_equal(drawn[shown], mixed.reshape(-1, 3))


def test_run_lengths_are_those_of_the_masks(rng):
    masks = random_masks(rng)
    count = len(masks)
    found = Detections(
        'a.png', HEIGHT, WIDTH, 'abcd', np.zeros((count, 4), np.float32),
        np.ones(count, np.float32), np.arange(count), masks,
    )  # fmt: skip
    for coded, mask in zip(found.run_lengths(), masks, strict=True):
        assert coded['size'] == [HEIGHT, WIDTH]
        assert np.array_equal(coco_mask.decode(dict(coded)).astype(bool), mask)
    assert found.select(np.zeros(0, int)).run_lengths() == []
