"""Pictures of what trained models see."""

import numpy as np
from PIL import Image

from attnpool_backbones.experiments.prediction_pictures import attention_picture


def test_attention_is_drawn_where_it_lies(tmp_path):
    grey = tmp_path / 'image.png'
    Image.fromarray(np.full((96, 96, 3), 128, np.uint8)).save(grey)
    attention = np.full((1, 4, 4), 0.01)
    attention[0, 3, 0] = 0.8
    path = tmp_path / 'picture.png'
    attention_picture([grey], [attention], [[0]], ['zero'], path, columns=2)

    picture = np.asarray(Image.open(path).convert('RGB')).astype(float)
    right = picture[:, picture.shape[1] // 2 :]
    # Only heat has a colour; titles, margins and the photo are grey.
    colour = right.max(-1) - right.min(-1)
    height, width = colour.shape
    y, x = np.unravel_index(colour.argmax(), colour.shape)
    assert colour.max() > 100
    assert y > height * 0.6 and x < width * 0.4
    assert colour[: height // 2, width // 2 :].max() < 60
