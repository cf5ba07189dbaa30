"""What the test data of a config says about a model in use: its pipeline and its palette."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, DefaultScope

from attnpool_backbones.class_colours import distinct_colours
from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import find_type, type_name
from attnpool_backbones.datasets.building import innermost

__all__ = [
    'array_pipeline',
    'inherent_metainfo',
    'require_usual_loading',
    'tested_dataset',
    'tested_palette',
]

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


def inherent_metainfo(cfg: Config, dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what the type of a data set tells about it: ADE20K's names and colours for instance.

    Args:
        cfg: The whole config.
        dataset: The config of the data set.

    Returns:
        The class's ``METAINFO``, empty if it has none.
    """
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        told = getattr(find_type(dataset, registry), 'METAINFO', None)
    return told if isinstance(told, Mapping) else {}


def tested_palette(cfg: Config, classes: Sequence[str]) -> Sequence[Sequence[int]]:
    """Returns red, green and blue of each class.

    Those that the config of the tested data set says, else those that its type has for classes of
    these names, else distinct ones.

    Args:
        cfg: The whole config.
        classes: Names, by label.

    Raises:
        UserError: If there is no tested data set.
    """
    dataset = tested_dataset(cfg)
    palette = (dataset.get('metainfo') or {}).get('palette')
    if palette and len(palette) == len(classes):
        return palette
    inherent = inherent_metainfo(cfg, dataset)
    own = dict(zip(inherent.get('classes') or (), inherent.get('palette') or (), strict=False))
    if all(name in own for name in classes):
        return [own[name] for name in classes]
    return distinct_colours(len(classes))


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
