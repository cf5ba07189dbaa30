"""What the test data of a config says about a model in use: its pipeline and its palette."""

from collections.abc import Collection, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import type_name
from attnpool_backbones.datasets.building import innermost

__all__ = ['array_pipeline', 'require_usual_loading', 'tested_dataset']

_LOADERS = ('LoadImageFromFile',)
# Pillow's pixels differ by the rounding of another JPEG decoder, turbojpeg's are not turned
_LOADED = dict(color_type=('color',), imdecode_backend=('cv2', None, 'pillow'))
_TRUTH = ('LoadAnnotations', 'LoadPanopticAnnotations')


def tested_dataset(cfg: Config) -> dict[str, Any]:
    """Returns the config of the data set that a model is tested on, without what wraps it.

    Raises:
        UserError: If there is none.
    """
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if loader is None:
        raise UserError(
            f'{cfg.filename} has no test_dataloader, which tells how images are prepared'
        )
    return next(innermost(loader.dataset))


def array_pipeline(cfg: Config) -> Compose:
    """Builds the test pipeline so that it starts from an array, and without a ground truth.

    Raises:
        UserError: If it loads images in a way that arrays are not loaded.
    """
    steps = []
    for step in tested_dataset(cfg).pipeline:
        if type_name(step) in _LOADERS:
            require_usual_loading(step)
            floats = bool(step.get('to_float32'))
            steps.append(dict(type='LoadImageFromNDArray', to_float32=floats))
        elif type_name(step) not in _TRUTH:
            steps.append(step)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return Compose(steps)


def require_usual_loading(step: Mapping[str, Any], **more: Collection[Any]) -> None:
    """Refuses a LoadImageFromFile that gives other pixels than those which predictions are made on.

    Args:
        step: Of a test pipeline.
        **more: Values that other settings may have.

    Raises:
        UserError: If a setting has a value that changes pixels.
    """
    for name, values in dict(_LOADED, **more).items():
        value = step.get(name, values[0])
        if value not in values:
            raise UserError(
                f"the test pipeline's LoadImageFromFile has {name}={value!r}; predictions and "
                f'exported files know {name}={values[0]!r} only, and would not be those of the '
                'test. --cfg-options can set it where the model was trained so'
            )
