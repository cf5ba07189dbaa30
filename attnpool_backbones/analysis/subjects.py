"""What a figure is made of: a model with its weights, and images as it sees them."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from attnpool_backbones.backbones.base import DenseBackbone
from attnpool_backbones.checkpoints import (
    FORMATS,
    CheckpointMismatch,
    load_pretrained,
    read_checkpoint,
    recognise,
)
from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.limits import MAX_PIXELS
from attnpool_backbones.inference.devices import require_device
from attnpool_backbones.registry import MODELS

__all__ = [
    'Subject',
    'View',
    'arch_of',
    'images_of',
    'load_subject',
    'pixel_statistics',
    'views_of',
]

SHORT_SIDE = 224
"""Pixels of an image for a backbone alone, whose pretraining size this mostly was."""
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
HALVES = (127.5,) * 3, (127.5,) * 3
SCALED_TO_HALVES = dict(CoAtNet=r'(?!bn_).*_rw2?', DeepViT=r'(?!nano).*')
"""Family -> pattern of its variants whose weights want mean and deviation 0.5, not ImageNet's."""
CHECKPOINT_SUFFIXES = ('.pth', '.pt', '.tar', '.safetensors', '.bin', '.ckpt')


@dataclass(frozen=True)
class View:
    """An image as a model sees it."""

    name: str
    image: np.ndarray
    """H, W, 3 uint8 in red, green, blue, of the size that the model gets, without padding."""
    inputs: Tensor
    """1, 3, H', W' normalised; the image is the upper left part."""
    scale: tuple[float, float]
    """Height and width of ``image`` over those of the file."""

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of ``inputs``."""
        return tuple(self.inputs.shape[-2:])


@dataclass(frozen=True)
class Subject:
    """A model with its weights."""

    name: str
    model: nn.Module
    """Detector, segmentor or the backbone itself, in eval mode."""
    backbone: nn.Module
    prepare: Callable[[str, np.ndarray], View]
    """Makes a view of a name and an image H, W, 3 uint8 in blue, green, red."""
    classes: tuple[str, ...] = ()
    head: dict[str, Tensor] = field(default_factory=dict)
    """What an official file holds besides the backbone: its classifier, by its names there."""
    dataset: Callable[[str, int | None], list[str]] | None = None
    """Returns image files of a split of the config, so many at most; None without a config."""
    max_pixels: int = MAX_PIXELS
    """That an image may have: the setting of the config, else 2**28."""


def load_subject(
    source: str,
    checkpoint: str | None = None,
    size: tuple[int, int] | int | None = None,
    random_weights: bool = False,
    device: str = 'cpu',
) -> Subject:
    """Loads what a user names.

    Args:
        source: The folder of a run; a config file; ``TYPE:ARCH`` of a backbone, e.g.
            ``DeepViT:16b``; or a checkpoint alone, whose names and shapes tell the backbone.
        checkpoint: Of a config (default: the best of its run, else the last) or of ``TYPE:ARCH``.
        size: Height and width of the images, or their short side, in pixels, for a backbone alone
            or a classifier. Default: 224 for the short side, 48 for one of the built-in digits. The
            test pipeline of a detector or segmentor tells its own.
        random_weights: Whether a backbone may stay as it was initialised.
        device: Where the model runs.

    Raises:
        UserError: There is nothing of that name, the weights are not named, or there is no such
            device.
        CheckpointMismatch: The file is of another model.
    """
    require_device(device)
    path = Path(source)
    if path.is_dir() or path.suffix == '.py':
        return _of_config(source, checkpoint, size, random_weights, device)
    if _is_file(source):
        return _of_file(source, size, device)
    kind, colon, arch = source.partition(':')
    if not colon or '/' in kind:
        raise UserError(
            f'{source}: not found. A model is the folder of a run, a config (.py), TYPE:ARCH of a '
            'backbone, e.g. DeepViT:16b, or a checkpoint file'
        )
    if checkpoint is None and not random_weights:
        raise UserError(
            f'{source}: name its --checkpoint, or say --random-weights to look at it as it starts'
        )
    state = {} if checkpoint is None else _official_names(read_checkpoint(checkpoint))
    backbone = _build(kind, arch, pooling=_has_pooling(state) or checkpoint is None)
    if checkpoint is not None:
        load_pretrained(backbone, checkpoint, logger=None)
    return _of_backbone(source, arch, backbone, state, size, device)


def views_of(subject: Subject, images: str, limit: int | None = None) -> Iterator[View]:
    """Yields the images of a source as a model sees them; see :func:`images_of`."""
    for name, image in images_of(subject, images, limit):
        yield subject.prepare(name, image)


def images_of(
    subject: Subject, images: str, limit: int | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the images of a source with their names, H, W, 3 uint8 in blue, green, red.

    Folders that cannot be read are told on standard error and left out.

    Args:
        subject: Has the data sets that may be meant.
        images: A file, a folder, a pattern, a video, or ``train``, ``val`` or ``test``: the data
            set of that name of the subject's config.
        limit: How many at most, evenly spaced through the source: data sets and folders are sorted
            by class. Of a video or a stream, the first ones. Default: all.

    Raises:
        UserError: There is nothing there, no image that can be read, or one that is too large.
    """
    from attnpool_backbones.inference.sources import open_source

    if images in ('train', 'val', 'test') and not Path(images).exists():
        if subject.dataset is None:
            raise UserError(f'--images {images}: only a run or a config has data sets of its own')
        images_there = subject.dataset(images, limit)
    else:
        images_there = images
    source = open_source(images_there, max_pixels=subject.max_pixels)
    for folder in source.closed:
        print(f'--images: left out: {folder}', file=sys.stderr)
    frames = source.frames
    if source.count is not None and source.rate is None:
        frames = list(frames)
        chosen = _spread(len(frames), limit)
        # after them the others, in place of what cannot be read
        others = sorted(set(range(len(frames))) - set(chosen))
        frames = [frames[index] for index in (*chosen, *others)]
    seen = 0
    for frame in frames:
        if limit is not None and seen >= limit:
            break
        image = frame.read()
        if image is not None:
            seen += 1
            yield frame.name, image
    if not seen:
        raise UserError(f'{images}: no image in it can be read')


def _spread(total: int, limit: int | None) -> list[int]:
    """Returns at most ``limit`` of the numbers below ``total``, evenly spaced from 0 on."""
    count = total if limit is None else min(limit, total)
    return [index * total // count for index in range(count)]


# ---------------------------------------------------------------------- a backbone alone


def _is_file(source: str) -> bool:
    return '://' in source or Path(source).is_file() or Path(source).suffix in CHECKPOINT_SUFFIXES


def _of_file(file: str, size: tuple[int, int] | int | None, device: str) -> Subject:
    raw = read_checkpoint(file)
    known = recognise(raw)
    if known is None:
        raise UserError(
            f'{file}: its names are those of no backbone here; name the model and give the file as '
            'its --checkpoint'
        )
    state = _official_names(raw)
    archs = arch_of(known.backbone, state)
    backbone = _build(known.backbone, archs[0], pooling=_has_pooling(state))
    load_pretrained(backbone, file, logger=None)
    name = f'{known.backbone}:{archs[0]}'
    if len(archs) > 1:
        more = ', '.join(f'{known.backbone}:{arch}' for arch in archs[1:])
        name += f' (its weights fit {more} too: name one of them with --checkpoint if it is that)'
    return _of_backbone(name, archs[0], backbone, state, size, device)


def _official_names(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a file's weights by the names of this package."""
    known = recognise(raw)
    return dict(raw) if known is None else known.convert(raw)


def arch_of(family: str, state: Mapping[str, Tensor]) -> list[str]:
    """Finds the variants of a family whose names and shapes a state dict has.

    Args:
        family: Type of the backbone.
        state: By the names of this package.

    Returns:
        The variants that fit best, all equally well.

    Raises:
        CheckpointMismatch: None of them has all weights in the file.
    """
    kind = MODELS.get(f'attnpool_backbones.{family}')
    leftover = [f.is_leftover for f in FORMATS if f.backbone == family]
    own = {name for name in state if not any(is_leftover(name) for is_leftover in leftover)}
    scores = {}
    for arch in kind.archs:
        with torch.device('meta'):
            model = _build(family, arch, pooling=_has_pooling(state))
        wanted = {
            name: value.numel()
            for name, value in model.state_dict().items()
            if not name.startswith(model.added)
        }
        shapes = {name: value.numel() for name, value in state.items()}
        found = {name for name, count in wanted.items() if shapes.get(name) == count}
        lacking, unused = wanted.keys() - found, own - found
        scores[arch] = sum(wanted[n] for n in lacking) + sum(shapes[n] for n in unused)
    best = min(scores.values())
    total = sum(value.numel() for value in state.values())
    if best > 0.1 * total:
        raise CheckpointMismatch(
            f'the weights are of a {family}, but of none of its variants: {", ".join(kind.archs)}'
        )
    return [arch for arch, score in scores.items() if score == best]


def _has_pooling(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith('pool.') for name in state)


def _build(kind: str, arch: str, pooling: bool) -> DenseBackbone:
    backbone = MODELS.get(f'attnpool_backbones.{kind}')
    if backbone is None or not issubclass(backbone, DenseBackbone):
        families = sorted({known.backbone for known in FORMATS})
        raise UserError(f'{kind}: no backbone of this name; there are {", ".join(families)}')
    options: dict[str, Any] = {}
    if 'pooling' in inspect.signature(backbone).parameters:
        options['pooling'] = pooling
    try:
        return MODELS.build(dict(type=f'attnpool_backbones.{kind}', arch=arch, **options))
    except ValueError as error:
        raise UserError(str(error)) from error


def pixel_statistics(family: str, arch: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and deviation of the pixels, red, green, blue, that a variant's weights want.

    Args:
        family: Type of the backbone, e.g. ``'DeepViT'``.
        arch: Name of the variant, e.g. ``'16b'``.
    """
    pattern = SCALED_TO_HALVES.get(family)
    return HALVES if pattern and re.fullmatch(pattern, arch) else IMAGENET


def _of_backbone(
    name: str, arch: str, backbone: DenseBackbone, state: Mapping[str, Tensor],
    size: tuple[int, int] | int | None, device: str,
) -> Subject:  # fmt: skip
    statistics = pixel_statistics(type(backbone).__name__, arch)
    shift, factor = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in statistics)

    def prepare(image_name: str, image: np.ndarray) -> View:
        resized = _resized(image, SHORT_SIDE if size is None else size)[..., ::-1].copy()
        pixels = torch.from_numpy(resized).to(device).permute(2, 0, 1)[None].float()
        scale = (resized.shape[0] / image.shape[0], resized.shape[1] / image.shape[1])
        return View(image_name, resized, (pixels - shift) / factor, scale)

    head = {
        name: value.to(device, torch.float32)
        for name, value in state.items()
        if name.startswith(('head.', 'fc.'))
    }
    return Subject(name, backbone.to(device).eval(), backbone, prepare, head=head)


def _resized(image: np.ndarray, size: tuple[int, int] | int) -> np.ndarray:
    height, width = image.shape[:2]
    if isinstance(size, int):
        factor = size / min(height, width)
        size = (max(32, round(height * factor)), max(32, round(width * factor)))
    shrinks = size[0] < height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(image, size[::-1], interpolation=method)


# ---------------------------------------------------------------------- a run, a config


def _of_config(
    source: str, checkpoint: str | None, size: tuple[int, int] | int | None, random_weights: bool,
    device: str,
) -> Subject:  # fmt: skip
    from mmengine.dataset import pseudo_collate

    from attnpool_backbones.config_tasks import recognise_task
    from attnpool_backbones.inference.loading import load_model, predictor_of
    from attnpool_backbones.launching.config import load_config
    from attnpool_backbones.launching.config_models import build_config_model

    if random_weights:
        cfg, classes = load_config(source), ()
        model = build_config_model(cfg).eval()
    else:
        model, cfg, classes = load_model(source, checkpoint)
    if recognise_task(cfg) == 'mmengine':
        return _of_classifier(source, model.to(device), cfg, classes, size)
    if size is not None:
        raise UserError(
            '--size: the config of a detector or segmentor tells the size of its images'
        )
    predictor = predictor_of(model.to(device), cfg, classes, device)

    def prepare(name: str, image: np.ndarray) -> View:
        sample = predictor.pipeline(dict(img=image, img_id=0))
        data = predictor.model.data_preprocessor(pseudo_collate([sample]), False)
        inputs = data['inputs']
        if not isinstance(inputs, Tensor):
            inputs = torch.stack(list(inputs))
        height, width = data['data_samples'][0].metainfo['img_shape'][:2]
        shown = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1].copy()
        return View(name, shown, inputs, (height / image.shape[0], width / image.shape[1]))

    return Subject(
        Path(source).stem, predictor.model, predictor.model.backbone, prepare, predictor.classes,
        dataset=lambda split, limit: _image_files(predictor.cfg, split, limit),
        max_pixels=cfg.get('max_pixels') or MAX_PIXELS,
    )  # fmt: skip


def _of_classifier(
    source: str, model: nn.Module, cfg: Any, classes: tuple[str, ...],
    size: tuple[int, int] | int | None,
) -> Subject:  # fmt: skip
    from attnpool_backbones.config_types import type_name
    from attnpool_backbones.datasets.object_crops import SIDE
    from attnpool_backbones.inference.config_data import tested_dataset

    if size is None:
        size = SIDE if type_name(tested_dataset(cfg)) == 'ObjectCrops' else SHORT_SIDE

    def prepare(name: str, image: np.ndarray) -> View:
        # as a whole: what a test cuts off of an image would be missing in the picture
        resized = _resized(image, size)[..., ::-1].copy()
        pixels = torch.from_numpy(resized).permute(2, 0, 1)
        inputs = model.data_preprocessor(dict(inputs=[pixels]))['inputs']
        scale = (resized.shape[0] / image.shape[0], resized.shape[1] / image.shape[1])
        return View(name, resized, inputs, scale)

    return Subject(
        Path(source).stem, model, model.backbone, prepare, classes,
        dataset=lambda split, limit: _image_files(cfg, split, limit),
        max_pixels=cfg.get('max_pixels') or MAX_PIXELS,
    )  # fmt: skip


def _image_files(cfg: Any, split: str, limit: int | None) -> list[str]:
    from attnpool_backbones.config_tasks import recognise_task
    from attnpool_backbones.datasets.building import build_dataset
    from attnpool_backbones.datasets.config_paths import require_data, require_loader

    require_loader(cfg, split)
    require_data(cfg, [split])
    task = recognise_task(cfg)
    if task == 'mmdet':
        from mmdet.registry import DATASETS
    elif task == 'mmseg':
        from mmseg.registry import DATASETS
    else:
        from attnpool_backbones.registry import DATASETS
    dataset = build_dataset(cfg[f'{split}_dataloader']['dataset'], DATASETS)
    if not hasattr(dataset, 'get_data_info'):
        raise UserError(f'--images {split}: the data set has no images of its own; name a folder')
    return [dataset.get_data_info(index)['img_path'] for index in _spread(len(dataset), limit)]
