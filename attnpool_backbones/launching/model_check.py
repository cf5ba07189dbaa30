"""What only the built model can tell: that its parts fit together and it knows the classes."""

import logging
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_tasks import recognise_task
from attnpool_backbones.config_types import config_entries, type_name
from attnpool_backbones.engine.wrapped_models import bare_model
from attnpool_backbones.launching.config_errors import words_of

__all__ = ['require_classes', 'require_fitting_parts']

SHAPE = (256, 256)
"""Height and width of the image that is tried: two cells at a stride of 128."""
SIZES = re.compile(
    r'[Ss]izes? of tensors? |shapes cannot be multiplied|view size is not|'
    r'invalid for input of size|Expected size for first two dimensions'
)
"""What torch says of tensors that do not fit to each other."""
MASKS_LOADED = dict(LoadAnnotations=False, LoadPanopticAnnotations=True)
"""Loaders of mmdet, and whether they load masks unless `with_mask` says so."""
OWN_CLASSES = ('boundary_threshold', 'max_text_len')
"""Attributes of heads with classes of their own: mmseg's STDCHead, mmdet's GroundingDINOHead."""


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
    things = dataset.metainfo.get('thing_classes') or classes
    wrong, right = [], []
    for name, head in heads(bare_model(model)):
        # of a panoptic model it finds the things alone
        told = things if name.startswith('roi_head.') else classes
        if set(told) <= set(classes) and head.num_classes != len(told):
            of_things = '' if told is classes else f', and there are {len(told)} thing_classes'
            wrong.append(f'  {config_key(name)}.num_classes is {head.num_classes}{of_things}')
            right.append(len(told))
    if wrong:
        names = ', '.join(map(str, classes[:5])) + (', ...' if len(classes) > 5 else '')
        numbers = ' or '.join(map(str, dict.fromkeys(right)))
        raise UserError(
            '\n'.join(
                [
                    f'the {split} data set has {len(classes)} classes ({names}), but',
                    *wrong,
                    f'set num_classes={numbers} there, or the classes of the data set: '
                    f'{split}_dataloader.dataset.metainfo=dict(classes=(...))',
                ]
            )
        )


def heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields what tells the data's classes apart, with its name.

    Proposals are of one class, boundaries of two, semantic maps beside boxes of their own classes,
    and what reads a prompt has one for each of its words.
    """
    for name, module in model.named_modules():
        parts = name.split('.')
        if not isinstance(getattr(module, 'num_classes', None), int):
            continue
        if parts[0] in ('backbone', 'neck') or not any('head' in part for part in parts):
            continue
        if 'semantic_head' in parts or any(hasattr(module, own) for own in OWN_CLASSES):
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

    A model that fails is tried once more at the size it is trained at: some take no other.
    Weights, statistics and random numbers stay as they are. What a model cannot do with boxes,
    masks and a label map alone, since it needs more of its data, is noted in the log.

    Args:
        model: As the runner built it.
        cfg: The whole config.
        batch_size: Images that one process trains on at once; None for no training.

    Raises:
        UserError: If channels or strides of backbone, neck and heads do not fit, a
            BatchNorm will have one value per channel, or mmseg cannot make a batch.
    """
    model = bare_model(model)
    if not hasattr(model, 'extract_feat'):  # neither a detector nor a segmentor
        return
    if batch_size is not None:
        require_one_padding(model, cfg)
        note_weighted_classes(model)
    try:
        try_parts(model, cfg, batch_size, SHAPE)
    except UserError:
        own = own_shape(model, cfg)
        if own in (None, SHAPE):
            raise
        try_parts(model, cfg, batch_size, own)


def own_shape(model: nn.Module, cfg: Config) -> tuple[int, int] | None:
    """Returns height and width that all images are padded or stretched to; None if there is none.

    Args:
        model: The detector or segmentor.
        cfg: The whole config.
    """
    size = getattr(model.data_preprocessor, 'size', None)
    if size is not None:
        return tuple(size)
    for _, entry in config_entries(cfg.get('test_dataloader') or cfg.get('train_dataloader')):
        scale = entry.get('scale')
        if type_name(entry) == 'Resize' and isinstance(scale, (list, tuple)):
            return None if entry.get('keep_ratio', False) else (scale[1], scale[0])
    return None


def require_one_padding(model: nn.Module, cfg: Config) -> None:
    """Checks that mmseg's preprocessor knows the size of the images of a training.

    Args:
        model: The detector or segmentor.
        cfg: The whole config.

    Raises:
        UserError: If it has neither a size nor a divisor, as in mmseg's bases, or both.
    """
    preprocessor = model.data_preprocessor
    if type(preprocessor).__name__ != 'SegDataPreProcessor':
        return
    size, divisor = preprocessor.size, preprocessor.size_divisor
    if (size is None) == (divisor is None):
        crop = cfg.get('crop_size')
        height, width = crop if isinstance(crop, (list, tuple)) else (512, 512)
        has = 'neither size nor size_divisor' if size is None else 'both size and size_divisor'
        raise UserError(
            f'model.data_preprocessor has {has}, and mmseg pads the images of a training by one of '
            f'them: set it to size=({height}, {width}), the size of the crops'
            + ('' if size is None else ', and size_divisor=None')
        )


def note_weighted_classes(model: nn.Module) -> None:
    """Notes losses of mmseg that look up the weight of a label that is no class."""
    for name, loss in model.named_modules():
        criterion = getattr(loss, 'cls_criterion', None)
        if (
            getattr(criterion, '__module__', '') == 'mmseg.models.losses.cross_entropy_loss'
            and criterion.__name__ == 'cross_entropy'
            and loss.class_weight is not None
            and loss.reduction == 'mean'
        ):
            print_log(
                f"model: mmseg's CrossEntropyLoss with class_weight at {config_key(name)} ends in "
                'an IndexError at the first pixel that is to be ignored, of a label map or of '
                'padding; type=attnpool_backbones.ClassWeightedCrossEntropyLoss takes them',
                'current',
                logging.WARNING,
            )
            return


def try_parts(
    model: nn.Module, cfg: Config, batch_size: int | None, shape: tuple[int, int]
) -> None:
    """Does what :func:`require_fitting_parts` does, on an image of one size.

    Args:
        model: The detector or segmentor.
        cfg: The whole config.
        batch_size: As there.
        shape: Height and width of the image.

    Raises:
        UserError: As there.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    watch = Watch(model)
    batch: dict[str, Any] = {}
    maps: list[tuple[int, ...]] = []

    def features() -> None:
        batch.update(model.data_preprocessor(tiny_batch(cfg, shape)))
        found = model.extract_feat(batch['inputs'])
        maps.extend(tuple(x.shape) for x in found if isinstance(x, Tensor))
        require_strides(model, [sizes[-1] for sizes in maps], batch['inputs'].shape[-1])
        if isinstance(found, (list, tuple)):
            require_maps(model, len(found))

    def prediction() -> None:
        if hasattr(model, 'encode_decode'):  # without windows
            metas = [sample.metainfo for sample in batch['data_samples']]
            model.encode_decode(batch['inputs'], metas)
        else:
            model.predict(batch['inputs'], batch['data_samples'])

    def losses() -> None:
        # many heads return what their losses take in training mode only; norms would refuse, or
        # wait for other processes
        for module, training in modes.items():
            module.training = training and not isinstance(module, _BatchNorm)
        model.loss(batch['inputs'], batch['data_samples'])

    size = 'x'.join(map(str, shape))
    steps = [features, prediction] if batch_size is None else [features, prediction, losses]
    try:
        with torch.no_grad(), kept_randomness(), kept_attributes(model):
            model.eval()
            for step in steps:
                watch.running.clear()
                try:
                    step()
                except (UserError, MemoryError, torch.OutOfMemoryError):
                    raise
                except Exception as error:  # of whatever layer gets what it cannot take
                    name = watch.running[-1] if watch.running else ''
                    where = f'at {config_key(name)}: {words_of(error)[:400]}'
                    # losses, other than predictions, get what the image's annotations make
                    has_other_sizes = step is prediction and SIZES.search(str(error))
                    is_sure = step is features or has_other_sizes
                    if not is_sure and not is_misfit(error, model.get_submodule(name)):
                        print_log(
                            f'model: its {step.__name__} could not be tried on an image of '
                            f'{size}, so parts may still not fit: {where}',
                            'current',
                            logging.WARNING,
                        )
                        continue
                    raise UserError(
                        f'the model of {cfg.filename} does not fit together, as a try with an '
                        f'image of {size} shows: {where}{given(maps, shape[1])}'
                    ) from error
    finally:
        watch.close()
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


def is_misfit(error: Exception, module: nn.Module) -> bool:
    """Tells whether parts do not fit, and it is not that the sample lacks something.

    Args:
        error: What a prediction or the losses ended in.
        module: The innermost module that ran.
    """
    if isinstance(module, nn.MultiheadAttention):  # which asserts its width
        return isinstance(error, (RuntimeError, AssertionError))
    has_weights = any(True for _ in module.parameters(recurse=False))
    is_layer = has_weights and next(module.children(), None) is None
    weighs_classes = getattr(module, 'class_weight', None) is not None
    return isinstance(error, RuntimeError) and (is_layer or weighs_classes)


def needs_more(norm: nn.Module) -> bool:
    """Tells whether a norm takes statistics of the batch of this process alone."""
    return norm.training and not isinstance(norm, SyncBatchNorm)


def given(maps: Sequence[tuple[int, ...]], width: int) -> str:
    """Words what came out before the heads, of an image of a width."""
    if not maps:
        return ''
    listed = ', '.join(f'{shape[1]} channels at stride {width // shape[-1]}' for shape in maps)
    return f' (before the heads are {len(maps)} maps: {listed})'


def tiny_batch(cfg: Config, shape: tuple[int, int]) -> dict[str, list]:
    """Returns an image of one grey with one object, as a dataloader would give it.

    Args:
        cfg: The whole config.
        shape: Height and width of the image.
    """
    sizes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), shape)
    meta = dict(sizes, scale_factor=(1.0, 1.0), img_id=0, img_path='', flip=False)
    meta['border'] = (0, 0, 0, 0)  # CenterNet's
    if recognise_task(cfg) == 'mmdet':
        from mmdet.structures import DetDataSample
        from mmdet.structures.bbox import HorizontalBoxes
        from mmdet.structures.mask import BitmapMasks
        from mmengine.structures import InstanceData, PixelData

        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.tensor([[64.0, 64.0, 128.0, 128.0]])),
            labels=torch.zeros(1, dtype=torch.long),
        )
        if has_masks(cfg):
            pixels = np.zeros((1, *shape), np.uint8)
            pixels[0, 64:128, 64:128] = 1
            sample.gt_instances.masks = BitmapMasks(pixels, *shape)
        sample.ignored_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.zeros(0, 4)), labels=torch.zeros(0, dtype=torch.long)
        )
        # PanopticFPN's, HTC's and SCNet's
        sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, *shape, dtype=torch.long))
    else:
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        sample = SegDataSample(metainfo=meta)
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, *shape, dtype=torch.long))
    return dict(inputs=[torch.full((3, *shape), 128, dtype=torch.uint8)], data_samples=[sample])


def has_masks(cfg: Config) -> bool:
    """Tells whether objects come with masks: RTMDet takes whatever masks there are for tensors.

    Args:
        cfg: The whole config.
    """
    entries = config_entries(cfg.get('train_dataloader') or {})
    loading = [entry for _, entry in entries if type_name(entry) in MASKS_LOADED]
    # loaders of others may load them
    return not loading or any(
        entry.get('with_mask', MASKS_LOADED[type_name(entry)]) for entry in loading
    )


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


@contextmanager
def kept_attributes(model: nn.Module) -> Iterator[None]:
    """Leaves modes, numbers and lists of all modules as they were: Dynamic R-CNN keeps a history.

    Args:
        model: The detector or segmentor.
    """
    kept = [
        (attributes, name, value, list(value) if isinstance(value, list) else [])
        for attributes in map(vars, model.modules())
        for name, value in attributes.items()
        if type(value) in (bool, int, float, list)
    ]
    try:
        yield
    finally:
        for attributes, name, value, content in kept:
            if isinstance(value, list):
                value[:] = content
            attributes[name] = value


def require_strides(model: nn.Module, widths: Sequence[int], width: int) -> None:
    """Checks the strides that anchors and RoIs count with against those of the maps.

    Args:
        model: The detector or segmentor.
        widths: Of the maps that the heads get.
        width: Of the image.

    Raises:
        UserError: If they differ, or are of another number.
    """
    has = [round(width / size) for size in widths]

    def is_wrong(stride: float, size: int) -> bool:
        # SSD and YOLACT count 300 or 550 pixels over the positions of maps that are rounded up
        is_rounded = abs(width / stride - size) < 1 and stride < 2 * width
        return round(width / size) != stride and not is_rounded

    def differ(told: Sequence[float]) -> bool:
        return any(map(is_wrong, told, widths))

    for name in ('rpn_head', 'bbox_head'):
        generator = getattr(getattr(model, name, None), 'prior_generator', None)
        told = [max(_listed(stride)) for stride in getattr(generator, 'strides', None) or ()]
        if told and (len(told) != len(has) or differ(told)):
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
            if len(told) > len(has) or differ(told):
                raise UserError(
                    f'model.roi_head.{name}.featmap_strides is {told}, but the neck gives maps of '
                    f'strides {has}'
                )


def require_maps(model: nn.Module, count: int) -> None:
    """Checks that heads ask for maps that are there.

    Args:
        model: The detector or segmentor.
        count: How many maps the heads get.

    Raises:
        UserError: If one asks for another.
    """
    for name, head in model.named_modules():
        asked = getattr(head, 'in_index', None)
        if any(isinstance(index, int) and not -count <= index < count for index in _listed(asked)):
            raise UserError(
                f'the model does not fit together: {config_key(name)}.in_index is {asked}, but the '
                f'heads get {count} maps'
            )


def _listed(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)
