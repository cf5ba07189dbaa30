"""What is written of predictions, whatever model they are of."""

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
