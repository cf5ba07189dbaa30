"""A trained model from what a user has: a run's folder, a config and a checkpoint, or one file."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from attnpool_backbones.checkpoints.door import load_from_checked_file
from attnpool_backbones.checkpoints.errors import CheckpointError
from attnpool_backbones.checkpoints.matching import names_in_model, shapes_of
from attnpool_backbones.command_line import UserError
from attnpool_backbones.compatibility import IncompatibleEnvironment
from attnpool_backbones.config_tasks import recognise_dense_task
from attnpool_backbones.datasets.building import innermost
from attnpool_backbones.datasets.limits import MAX_PIXELS
from attnpool_backbones.inference.config_data import (
    array_pipeline,
    inherent_metainfo,
    tested_palette,
)
from attnpool_backbones.inference.devices import require_device
from attnpool_backbones.inference.exported_facts import Facts
from attnpool_backbones.inference.exported_files import EXPORTED, read_exported
from attnpool_backbones.inference.exported_model import ExportedModel
from attnpool_backbones.inference.predictor import NO_OBJECTS, Predictor
from attnpool_backbones.launching.checkpoint_check import require_own_weights
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.config_errors import explained
from attnpool_backbones.launching.config_models import build_config_model
from attnpool_backbones.launching.latest_checkpoint import newest_best, noted_checkpoint

__all__ = [
    'config_of_run', 'find_model_files', 'is_exported', 'load', 'load_exported', 'load_model',
    'max_pixels_of', 'predictor_of', 'predictor_of_file',
]  # fmt: skip

_NUMBER = re.compile(r'(\d+)')


def load(
    model: str | Path,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> Predictor:
    """Loads a trained detector or segmentor.

    Args:
        model: The folder of a run, a config file, or a file of ``attnpool export``.
        checkpoint: Of the config. Default: the best one beside it, else the last.
        device: Default: ``'cuda'`` where there is one, else ``'cpu'``; of a file ``'cpu'``.
        cfg_options: Settings of the config to override, by dotted key; of a file only
            ``max_pixels``.

    Returns:
        Called with a source it yields predictions.

    Raises:
        UserError: If something is not there, or does not belong together.
    """
    if is_exported(model):
        if checkpoint or set(cfg_options or ()) - {'max_pixels'}:
            raise UserError(
                f'{model}: an exported file takes no --checkpoint, and of --cfg-options only '
                'max_pixels=N'
            )
        predictor = load_exported(model, device or 'cpu')
        predictor.cfg = Config(cfg_options) if cfg_options else None
        return predictor
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    require_device(device)
    built, cfg, classes = load_model(model, checkpoint, cfg_options)
    # TwoStagePanopticSegmentor has one too, whose settings know no objects
    fusion = getattr(built, 'panoptic_fusion_head', None)
    if fusion is not None and not (fusion.test_cfg or {}).get('instance_on'):
        raise UserError(NO_OBJECTS.format(type(built).__name__))
    return predictor_of(built.to(device), cfg, classes, device)


def predictor_of(model: nn.Module, cfg: Config, classes: Sequence[str], device: str) -> Predictor:
    """Makes a predictor of a model that is built.

    Args:
        model: In eval mode, on its device.
        cfg: Its config; the test pipeline tells how images are prepared.
        classes: Names, by label.
        device: Where the model is.
    """
    palette = tested_palette(cfg, classes)
    is_detector = recognise_dense_task(cfg, 'prediction') == 'mmdet'
    return Predictor(model, array_pipeline(cfg), classes, palette, is_detector, device, cfg)


def load_model(
    model: str | Path,
    checkpoint: str | Path | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> tuple[nn.Module, Config, tuple[str, ...]]:
    """Loads a trained detector, segmentor or image classifier to work with it.

    Args:
        model: The folder of a run, or a config file.
        checkpoint: As :func:`load` takes it.
        cfg_options: As :func:`load` takes them.

    Returns:
        The model in eval mode on the CPU, its config, and the names of its classes.

    Raises:
        UserError: If something is not there, or does not belong together.
    """
    config, weights = find_model_files(model, checkpoint)
    cfg = load_config(str(config), cfg_options)
    content = load_from_checked_file(str(weights))
    # random numbers of the caller go on as before
    with explained(cfg, 'the model'), torch.random.fork_rng(devices=[]):
        built = build_config_model(cfg)
    _load_weights(built, content, weights)
    return built.eval(), cfg, _labels(built, _classes(cfg, content, built))


def max_pixels_of(
    model: str | Path,
    checkpoint: str | Path | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> int:
    """Tells how many pixels an image may have, before a model is loaded.

    Args:
        model: As :func:`load` takes it.
        checkpoint: Likewise.
        cfg_options: Likewise.

    Returns:
        The setting ``max_pixels`` of the options or the config, else 2**28; this too where there is
        no such model, which is told when it is loaded.

    Raises:
        UserError: If the setting is no whole number from 1 on.
    """
    most = (cfg_options or {}).get('max_pixels')
    if most is None and not is_exported(model):
        try:
            config, _ = find_model_files(model, checkpoint)
            most = load_config(str(config)).get('max_pixels')
        except (UserError, IncompatibleEnvironment):
            pass
    if most is None:
        return MAX_PIXELS
    if not isinstance(most, int) or most < 1:
        raise UserError(f'max_pixels has to be a whole number from 1 on, not {most!r}')
    return most


def is_exported(model: str | Path) -> bool:
    """Tells whether a name is that of a file of ``attnpool export``."""
    return Path(model).suffix in EXPORTED


def load_exported(path: str | Path, device: str = 'cpu') -> Predictor:
    """Loads a file of ``attnpool export``; see :func:`load`."""
    return predictor_of_file(*read_exported(path, device), device)


def predictor_of_file(
    file: Callable[[np.ndarray], Mapping[str, np.ndarray]], facts: Facts, device: str = 'cpu'
) -> Predictor:
    """Makes a predictor of an exported file that is open.

    Args:
        file: What runs its graph.
        facts: What it says about itself.
        device: Where it runs.
    """
    model = ExportedModel(file, facts).eval()
    is_detector = facts.task == 'detection'
    return Predictor(model, facts.preparation, facts.classes, facts.palette, is_detector, device)


def find_model_files(
    model: str | Path, checkpoint: str | Path | None = None
) -> tuple[Path, Path | str]:
    """Finds config and checkpoint.

    Args:
        model: The folder of a run, or a config file.
        checkpoint: Its checkpoint. Default: the best one of the run, else the last; of several runs
            in one folder those of the last one.

    Returns:
        Both files; of a checkpoint that is elsewhere, its address.

    Raises:
        UserError: If one of them is not there.
    """
    path = Path(model)
    if path.suffix == '.pth':
        raise UserError(
            f'{path}: a checkpoint alone does not say which model it is of; name the folder of the '
            'run, or the config and then the checkpoint'
        )
    if not path.exists():
        runs = sorted(str(p.parent) for p in Path('work_dirs').glob('*/last_checkpoint'))
        there = f'; runs here: {", ".join(runs)}' if runs else ''
        raise UserError(f'model not found: {path.absolute()}{there}')
    if path.is_dir():
        config = config_of_run(path)
        return config, _named(checkpoint) if checkpoint else _checkpoint_of_run(path)
    if path.suffix != '.py':
        raise UserError(
            f'{path}: a model is the folder of a run or a config (.py) with a checkpoint (.pth), '
            f'or a file of attnpool export ({", ".join(EXPORTED)})'
        )
    if checkpoint is None:
        run = path.parent / path.stem
        own = [path.parent] if (path.parent / 'last_checkpoint').is_file() else []
        for folder in (run, *own, Path('work_dirs', path.stem)):
            if list(folder.glob('*.pth')):
                return path, _checkpoint_of_run(folder)
        raise UserError(f'{path}: name the checkpoint too; none is in {run} or beside the config')
    # what is there but is no file is told by who reads it
    if not os.path.lexists(checkpoint) and '://' not in str(checkpoint):
        raise UserError(f'checkpoint not found: {Path(checkpoint).absolute()}')
    return path, _named(checkpoint)


def _named(checkpoint: str | Path) -> Path | str:
    # a path has no two slashes
    return str(checkpoint) if '://' in str(checkpoint) else Path(checkpoint)


def config_of_run(folder: Path) -> Path:
    """Finds the config in the folder of a run.

    Raises:
        UserError: If there is none.
    """
    # mmengine leaves the whole config there when a run starts
    configs = sorted(folder.glob('*.py'), key=lambda file: file.stat().st_mtime)
    if not configs:
        raise UserError(f'{folder}: no config (.py) in it; is it the folder of a run?')
    return configs[-1]


def _checkpoint_of_run(folder: Path) -> Path:
    files = list(folder.glob('*.pth'))
    if not files:
        raise UserError(f'{folder}: no checkpoint (.pth) in it; has the training saved one?')
    noted = Path(noted_checkpoint(folder) or '').name
    return newest_best(folder) or max(files, key=lambda file: (file.name == noted, *_age(file)))


def _age(file: Path) -> tuple[int, float]:
    numbers = _NUMBER.findall(file.stem)
    return int(numbers[-1]) if numbers else -1, file.stat().st_mtime


def _load_weights(model: nn.Module, content: Any, file: Path | str) -> None:
    """Loads all weights of a model; a head without its own would predict noise.

    Raises:
        CheckpointError: If it has none.
        CheckpointMismatch: If one is not in the file, or has another shape.
    """
    weights = content.get('state_dict', content) if isinstance(content, Mapping) else None
    stored = shapes_of(weights) if isinstance(weights, Mapping) else {}
    if not stored:
        raise CheckpointError(f'no weights in {file}; it has to be a checkpoint of a training')
    require_own_weights(model, stored, str(file))
    names = names_in_model(stored, model.state_dict())
    model.load_state_dict({names[name]: weights[name] for name in stored}, strict=False)


def _classes(cfg: Config, content: Any, model: nn.Module) -> tuple[str, ...]:
    """Names of the classes: the checkpoint knows what it was trained on, else the config."""
    count = _count_classes(model)
    for names in _told_classes(cfg, content):
        # those of somebody's file, or of a data set that is not the model's, would be wrong names
        if isinstance(names, (list, tuple)) and len(names) == count:
            return tuple(map(str, names))
    return tuple(f'class_{label}' for label in range(count))


def _told_classes(cfg: Config, content: Any) -> Iterator[Any]:
    """Yields what may be the names of the classes, the surest first."""
    meta = content.get('meta')
    if isinstance(meta, Mapping):
        yield _names(meta.get('dataset_meta'))
        yield _names(meta)  # of mmdet 2 and mmseg 0
    if not cfg.get('test_dataloader'):
        return
    dataset = next(innermost(cfg.test_dataloader.dataset))
    names = _names(dataset.get('metainfo'))
    if not names:
        names = _names(inherent_metainfo(cfg, dataset))
    yield names


def _names(told: Any) -> Any:
    told = told if isinstance(told, Mapping) else {}
    return told.get('classes') or told.get('CLASSES')


def _labels(model: nn.Module, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the labels: one class in one channel has label 1, what is not of it label 0."""
    channels = getattr(getattr(model, 'decode_head', None), 'out_channels', None)
    return ('background', *classes) if len(classes) == channels == 1 else classes


def _count_classes(model: nn.Module) -> int:
    roi_head = getattr(model, 'roi_head', None)
    heads = (
        getattr(roi_head, 'bbox_head', None),
        # a classifier has `head`, an ImageTagger the image-level one alone
        *(
            getattr(model, name, None)
            for name in (
                'bbox_head', 'mask_head', 'panoptic_head', 'decode_head', 'head', 'image_head',
            )
        ),
    )  # fmt: skip
    first = (head[0] if isinstance(head, nn.ModuleList) else head for head in heads)
    counts = (getattr(head, 'num_classes', None) for head in first)
    count = next((count for count in counts if isinstance(count, int)), None)
    if count is None:
        raise UserError(
            f'{type(model).__name__} has no head that tells a number of classes (bbox_head, '
            'mask_head, panoptic_head, decode_head, head or image_head)'
        )
    return count
