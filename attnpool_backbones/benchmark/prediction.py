"""How much of a model's own speed is left when it predicts on a folder of images.

A case's model is ``predict.`` and a key of :data:`CONFIGS`, its size that of the images, its batch
how many there are. The form ``'ours'`` does what ``attnpool predict FOLDER`` does: images are read,
resized, predicted on, drawn and written, with their lines of JSON. ``'plain'`` is the model alone,
on the same images made ready before.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.config_models import build_config_model

__all__ = ['CONFIGS', 'PredictionWorkload', 'is_prediction']

PREFIX = 'predict.'
CONFIGS = {
    'nano-detector': 'patchconvnet/mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py',
    'nano-segmentor': 'patchconvnet/upernet_patchconvnet-nano_slim_digit-scenes.py',
    'detector': 'poolformer/mask-rcnn_poolformer-s12_fpn_1x_coco.py',
}
OBJECTS = 10
"""That a detector finds in each image, to be drawn and written with their masks."""


class PredictionWorkload:
    """A case of this module, ready to run; like :class:`.models.Workload`.

    Args:
        case: What to run.
        device: ``'cpu'`` or ``'cuda'``.

    Raises:
        UserError: The model is none of this module.
    """

    def __init__(self, case: Case, device: str):
        from attnpool_backbones.inference.loading import predictor_of

        name = case.model.removeprefix(PREFIX)
        if name not in CONFIGS:
            known = [PREFIX + key for key in CONFIGS]
            raise UserError(f"unknown model '{case.model}', choose from {known}")
        self.case = case
        self._folder = tempfile.TemporaryDirectory()
        self.images, self.out = (Path(self._folder.name, part) for part in ('images', 'out'))
        write_photos(self.images, case)
        cfg = load_config(str(config_root() / CONFIGS[name]))
        model = busy_model(cfg).eval().to(device)
        self.predictor = predictor_of(model, cfg, classes_of(cfg), device)
        self.prepared = [] if case.form == 'ours' else self._prepared()

    def clear(self) -> None:
        """Removes what was written: where a file is replaced, some disks are waited for."""
        shutil.rmtree(self.out, ignore_errors=True)

    def run(self) -> None:
        """Predicts on all images once."""
        if self.case.form != 'ours':
            for inputs in self.prepared:
                self.predictor.forward([inputs])
            return
        from attnpool_backbones.inference.predictor import Options
        from attnpool_backbones.inference.running import predict_and_write
        from attnpool_backbones.inference.sources import open_source
        from attnpool_backbones.inference.writing import Outputs

        predictor = self.predictor
        outputs = Outputs(self.out, ['pictures', 'json'], predictor.is_detector, predictor.classes)
        predict_and_write(predictor, open_source(self.images), Options(score=0.0), outputs)
        outputs.close()

    forward = run

    def _prepared(self) -> list[dict[str, Any]]:
        from attnpool_backbones.inference.sources import open_source

        frames = open_source(self.images).frames
        return [self.predictor.pipeline(dict(img=frame.read(), img_id=0)) for frame in frames]


def is_prediction(model: str) -> bool:
    """Tells whether a case's model is one of this module."""
    return model.startswith(PREFIX)


def write_photos(folder: Path, case: Case) -> None:
    """Writes digit scenes of a case's size as JPEG, as photos are."""
    import cv2

    from attnpool_backbones.datasets.digit_scenes import generate

    with tempfile.TemporaryDirectory() as scenes:
        generate(Path(scenes), train=case.batch, val=1, size=case.size[::-1], seed=0)
        folder.mkdir()
        for file in sorted(Path(scenes, 'images/training').iterdir()):
            cv2.imwrite(str(folder / f'{file.stem}.jpg'), cv2.imread(str(file)))


def busy_model(cfg: Config) -> nn.Module:
    """Builds a model of random weights, of which a detector finds :data:`OBJECTS` in an image.

    Args:
        cfg: The whole config; the test settings are changed.
    """
    torch.manual_seed(0)
    second_stage = (cfg.model.get('test_cfg') or {}).get('rcnn')
    if second_stage is not None:
        second_stage.score_thr, second_stage.max_per_img = 0.0, OBJECTS
    return build_config_model(cfg)


def classes_of(cfg: Config) -> tuple[str, ...]:
    """Names the classes of a config's model."""
    model = cfg.model
    head = model.get('decode_head') or model.roi_head.bbox_head
    return tuple(f'class {label}' for label in range(head.num_classes))
