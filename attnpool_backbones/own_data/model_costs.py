"""What a backbone costs under a head, before there is a config."""

import tempfile
from pathlib import Path

from attnpool_backbones.launching.config import load_config
from attnpool_backbones.own_data.bases import Bases
from attnpool_backbones.own_data.config_writing import Data, detection_config, segmentation_config
from attnpool_backbones.own_data.label_map_files import MapLayout
from attnpool_backbones.own_data.planning import Plan
from attnpool_backbones.zoo.config_sizes import Size, measure_model

__all__ = ['count_model']

CLASSES = 80


def count_model(bases: Bases, side: int) -> Size:
    """Counts parameters and multiply-accumulates for 80 classes.

    Args:
        bases: Backbone and head.
        side: Of the image in pixels.
    """
    crop = (side, side) if bases.kind.segments else None
    plan = Plan(1, 1, 1, 1e-4, 1, side, crop)
    names = [f'class_{label}' for label in range(CLASSES)]
    data = Data(
        Path('.'),
        names,
        'no data',
        files=dict(train=('', ''), val=('', '')),
        layouts=dict(train=[MapLayout('', '', '', '')], val=[MapLayout('', '', '', '')]),
        palette=[(0, 0, 0)] * CLASSES,
    )
    write = segmentation_config if bases.kind.segments else detection_config
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, 'config.py')
        target.write_text(write(bases, plan, data, target))
        return measure_model(load_config(str(target)), side, side)
