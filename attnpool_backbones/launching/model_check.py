"""What only the built model can tell: that its parts fit together and it knows the classes."""

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_tasks import recognise_task
from attnpool_backbones.launching.config_errors import words_of

__all__ = ['require_classes', 'require_fitting_parts']

SIDE = 256
"""Height and width of the image that is tried: two cells at a stride of 128."""


def inner_model(model: nn.Module) -> nn.Module:
    """Returns the detector or segmentor inside of wrappers."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def config_key(module_name: str) -> str:
    """Returns the config's key of a module: `roi_head.bbox_head.0` is `model...bbox_head[0]`."""
    return re.sub(r'\.(\d+)(?=\.|$)', r'[\1]', f'model.{module_name}' if module_name else 'model')


# ------------------------------------------------------------------ classes


def require_classes(model: nn.Module, dataset: Any, split: str) -> None:
    """Checks that every head has as many classes as the data set.

    Args:
        model: As the runner built it.
        dataset: The built data set.
        split: 'train', 'val' or 'test', for the message.

    Raises:
        UserError: Naming every head that has not, with both numbers.
    """
    classes = dataset.metainfo.get('classes')
    if not isinstance(classes, (list, tuple)):
        return
    wrong = [
        f'  {config_key(name)}.num_classes is {head.num_classes}'
        for name, head in heads(inner_model(model))
        if head.num_classes != len(classes)
    ]
    if wrong:
        names = ', '.join(map(str, classes[:5])) + (', ...' if len(classes) > 5 else '')
        raise UserError(
            '\n'.join(
                [
                    f'the {split} data set has {len(classes)} classes ({names}), but',
                    *wrong,
                    f'set num_classes={len(classes)} there, or the classes of the data set: '
                    f'{split}_dataloader.dataset.metainfo=dict(classes=(...))',
                ]
            )
        )


def heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields what tells classes apart, with its name: no proposals, which are of one class."""
    for name, module in model.named_modules():
        parts = name.split('.')
        if not isinstance(getattr(module, 'num_classes', None), int):
            continue
        if parts[0] in ('backbone', 'neck') or not any('head' in part for part in parts):
            continue
        is_proposal = any('rpn' in part for part in parts)
        is_loss = any(part.startswith('loss') for part in parts)
        if not is_proposal and not is_loss and not getattr(module, 'class_agnostic', False):
            yield name, module


# ------------------------------------------------------------------ parts


class Watch:
    """Follows a forward pass: which module runs, and what the detector's heads and norms get."""

    def __init__(self, model: nn.Module) -> None:
        self.running: list[str] = []
        self.vectors: list[str] = []
        self.handles = []
        for name, module in model.named_modules():
            self.handles.append(
                module.register_forward_pre_hook(lambda m, args, n=name: self._enter(n, m, args))
            )
            self.handles.append(module.register_forward_hook(lambda *_: self._leave()))

    def _enter(self, name: str, module: nn.Module, args: tuple) -> None:
        self.running.append(name)
        x = args[0] if args else None
        if (
            isinstance(module, _BatchNorm)
            and isinstance(x, Tensor)
            and x.dim() == 4
            and x.shape[2:] == (1, 1)
        ):
            self.vectors.append(name)

    def _leave(self) -> None:
        self.running.pop()

    def close(self) -> None:
        """Takes the hooks off."""
        for handle in self.handles:
            handle.remove()


def require_fitting_parts(model: nn.Module, cfg: Config, batch_size: int | None = None) -> None:
    """Runs a model once on a small image, to see that its parts fit together.

    Weights, statistics and random numbers stay as they are.

    Args:
        model: As the runner built it.
        cfg: The whole config.
        batch_size: Images that one process trains on at once; None for no training.

    Raises:
        UserError: If channels or strides of backbone, neck and heads do not fit, or a
            BatchNorm will have one value per channel.
    """
    model = inner_model(model)
    if not hasattr(model, 'extract_feat'):  # neither a detector nor a segmentor
        return
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    watch = Watch(model)
    maps: list[tuple[int, ...]] = []
    try:
        model.eval()
        with torch.no_grad(), kept_randomness():
            batch = model.data_preprocessor(tiny_batch(cfg))
            features = model.extract_feat(batch['inputs'])
            maps = [tuple(x.shape) for x in features if isinstance(x, Tensor)]
            side = batch['inputs'].shape[-1]
            require_strides(model, [side / shape[-1] for shape in maps])
            if recognise_task(cfg) == 'mmdet':
                model.predict(batch['inputs'], batch['data_samples'])
            else:
                model._forward(batch['inputs'], batch['data_samples'])
            if batch_size is not None:
                watch.running.clear()
                model.loss(batch['inputs'], batch['data_samples'])
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of whatever layer gets what it cannot take
        name = watch.running[-1] if watch.running else ''
        raise UserError(
            f'the model of {cfg.filename} does not fit together, as a try with an image of '
            f'{SIDE}x{SIDE} shows: at {config_key(name)}: {words_of(error)[:400]}' + given(maps)
        ) from error
    finally:
        watch.close()
        for module, training in modes.items():
            module.training = training
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    alone = [
        name
        for name in dict.fromkeys(watch.vectors)
        # those of our backbones take running statistics then
        if not name.startswith('backbone.') and needs_more(model.get_submodule(name))
    ]
    if batch_size == 1 and alone:
        raise UserError(
            f'batch_size is 1, and {config_key(alone[0])} (one of {len(alone)}) is a BatchNorm of '
            'maps of 1x1, which has one value per channel then: set train_dataloader.batch_size=2 '
            "or more, or a norm_cfg without batch statistics, e.g. dict(type='GN', num_groups=32)"
        )


def needs_more(norm: nn.Module) -> bool:
    """Tells whether a norm takes statistics of the batch of this process alone."""
    return norm.training and not isinstance(norm, SyncBatchNorm)


def given(maps: Sequence[tuple[int, ...]]) -> str:
    """Words what came out before the heads."""
    if not maps:
        return ''
    listed = ', '.join(f'{shape[1]} channels at stride {SIDE // shape[-1]}' for shape in maps)
    return f' (before the heads are {len(maps)} maps: {listed})'


def tiny_batch(cfg: Config) -> dict[str, list]:
    """Returns an image of one grey with one object, as a dataloader would give it."""
    shape = (SIDE, SIDE)
    sizes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), shape)
    meta = dict(sizes, scale_factor=(1.0, 1.0), img_id=0, img_path='', flip=False)
    if recognise_task(cfg) == 'mmdet':
        from mmdet.structures import DetDataSample
        from mmdet.structures.bbox import HorizontalBoxes
        from mmdet.structures.mask import BitmapMasks
        from mmengine.structures import InstanceData

        sample = DetDataSample(metainfo=meta)
        pixels = np.zeros((1, *shape), np.uint8)
        pixels[0, 64:128, 64:128] = 1
        sample.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.tensor([[64.0, 64.0, 128.0, 128.0]])),
            labels=torch.zeros(1, dtype=torch.long),
            masks=BitmapMasks(pixels, *shape),
        )
        sample.ignored_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.zeros(0, 4)), labels=torch.zeros(0, dtype=torch.long)
        )
    else:
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        sample = SegDataSample(metainfo=meta)
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, *shape, dtype=torch.long))
    return dict(inputs=[torch.full((3, *shape), 128, dtype=torch.uint8)], data_samples=[sample])


@contextmanager
def kept_randomness() -> Iterator[None]:
    """Leaves all generators of random numbers as they were."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def require_strides(model: nn.Module, strides: Sequence[float]) -> None:
    """Checks the strides that anchors and RoIs count with against those of the maps.

    Args:
        model: The detector or segmentor.
        strides: Of the maps that the heads get.

    Raises:
        UserError: If they differ, or are of another number.
    """
    has = [round(stride) for stride in strides]
    for name in ('rpn_head', 'bbox_head'):
        generator = getattr(getattr(model, name, None), 'prior_generator', None)
        told = [max(_pair(stride)) for stride in getattr(generator, 'strides', None) or ()]
        if told and told != has:
            raise UserError(
                f'model.{name}.anchor_generator.strides is {told}, but the neck gives maps of '
                f'strides {has}'
            )
    roi_head = getattr(model, 'roi_head', None)
    for name in ('bbox_roi_extractor', 'mask_roi_extractor'):
        extractors = getattr(roi_head, name, None)
        if extractors is None:
            continue
        for extractor in extractors if isinstance(extractors, nn.ModuleList) else [extractors]:
            told = [int(stride) for stride in getattr(extractor, 'featmap_strides', ())]
            if told and told != has[: len(told)]:
                raise UserError(
                    f'model.roi_head.{name}.featmap_strides is {told}, but the neck gives maps of '
                    f'strides {has}'
                )


def _pair(stride: Any) -> tuple[int, ...]:
    return tuple(stride) if isinstance(stride, (list, tuple)) else (stride,)
