"""What a detector and a segmentor do beside their own work when they have an image-level head."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnpool_backbones.datasets.bit_depth import IGNORED
from attnpool_backbones.dense_models.image_tags import (
    TAGS,
    covered,
    make_tags,
    stitched,
    true_tags,
)
from attnpool_backbones.registry import MODELS

__all__ = ['DetectorWithImageHead', 'SegmentorWithImageHead']

PROBED_SIDE = 64
"""Pixels of the image that tells the channels of a backbone that does not name them."""


class ImageHeadMixin:
    """Gives the backbone's last map to :class:`ImageTagHead`, in training and in prediction.

    Args:
        image_head: Config of the head. ``type``, ``in_channels`` and ``num_classes`` may be left
            out: the last two are then those of the backbone and of the main head.
        **options: Those of the model.

    Raises:
        ValueError: The number of classes is neither given nor told by the main head.
    """

    def __init__(self, *, image_head: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        head = {'type': 'attnpool_backbones.ImageTagHead', **image_head}
        if head.get('num_classes') is None:
            head['num_classes'] = self.main_classes()
        if head.get('in_channels') is None:
            head['in_channels'] = last_channels(self.backbone)
        self.image_head = MODELS.build(head)
        self.take_last_map: Callable[[Tensor], None] | None = None

    def main_classes(self) -> int:
        """Returns the number of classes of the main head."""
        for name in self.main_heads:
            head = self
            for part in name.split('.'):
                head = getattr(head, part, None)
                head = head[0] if isinstance(head, nn.ModuleList) else head
            if isinstance(getattr(head, 'num_classes', None), int):
                return head.num_classes
        raise ValueError(
            f'none of {", ".join(self.main_heads)} of {type(self).__name__} tells the number of '
            'classes: set image_head.num_classes'
        )

    def extract_feat(self, inputs: Tensor) -> Sequence[Tensor]:
        """Runs backbone and neck, and gives the backbone's last map to who waits for it."""
        maps = self.backbone(inputs)
        if self.take_last_map is not None:
            self.take_last_map(maps[-1])
        return self.neck(maps) if self.with_neck else maps

    @contextmanager
    def each_last_map(self, use: Callable[[Tensor], Any] | None = None) -> Iterator[list]:
        """Yields a list with an entry for every pass through the backbone.

        Args:
            use: Makes the entry of the last map, as soon as there is one: in the backward pass its
                gradient is then added to those of neck and heads at once, while both are at hand.
                Default: the map is the entry.
        """
        found = []
        self.take_last_map = lambda maps: found.append(use(maps) if use else maps)
        try:
            yield found
        finally:
            self.take_last_map = None

    def loss(self, inputs: Tensor, data_samples: Sequence) -> dict[str, Tensor]:
        """Computes the model's losses, and `loss_tags` unless its weight is 0."""
        weight = self.image_head.loss_weight
        if not weight:
            return super().loss(inputs, data_samples)
        sizes = [image_size(sample, inputs) for sample in data_samples]

        def logits_of(maps: Tensor) -> Tensor:
            return self.classify(maps, sizes, inputs.shape[-2:], return_maps=False)[0]

        with self.each_last_map(logits_of) as logits:
            losses = super().loss(inputs, data_samples)
        tags = torch.stack([self.true_tags(sample) for sample in data_samples])
        losses['loss_tags'] = self.image_head.loss(logits[-1], tags)
        return losses

    def true_tags(self, sample: Any) -> Tensor:
        """Returns the tags K of an image by its annotations."""
        head = getattr(self, 'decode_head', None)
        head = head[-1] if isinstance(head, nn.ModuleList) else head
        ignored = getattr(head, 'ignore_index', IGNORED)
        return true_tags(sample, self.image_head.num_classes, ignored)

    def classify(
        self, maps: Tensor, images: Sequence[tuple[int, int]], inputs: Sequence[int],
        return_maps: bool = True,
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        """Lets the head see each image without its padding.

        Args:
            maps: B, C, h, w.
            images: Height and width of each image in pixels.
            inputs: Height and width of the padded batch.
            return_maps: Whether class maps are wanted.

        Returns:
            Logits B, K, and for each image maps K, h', w'.
        """
        sizes = [covered(maps, size, inputs) for size in images]
        if len(set(sizes)) == 1:
            height, width = sizes[0]
            logits, found = self.image_head(maps[..., :height, :width], return_maps=return_maps)
            return logits, list(found) if return_maps else []
        parts = [
            self.image_head(one[None, :, :height, :width], return_maps=return_maps)
            for one, (height, width) in zip(maps, sizes, strict=True)
        ]
        found = [part.maps[0] for part in parts] if return_maps else []
        return torch.cat([part.logits for part in parts]), found


class DetectorWithImageHead(ImageHeadMixin):
    """An mmdet detector with an image-level head."""

    main_heads = ('roi_head.bbox_head', 'bbox_head', 'mask_head')

    def predict(self, inputs: Tensor, data_samples: Sequence, rescale: bool = True) -> Sequence:
        """Predicts as the detector does; every sample gets ``pred_tags`` (:func:`make_tags`)."""
        sizes = [image_size(sample, inputs) for sample in data_samples]
        with self.each_last_map() as kept:
            results = super().predict(inputs, data_samples, rescale=rescale)
        logits, maps = self.classify(kept[-1], sizes, inputs.shape[-2:])
        whole = kept[-1].shape[-2:]
        for sample, size, own, found in zip(results, sizes, logits, maps, strict=True):
            cell = cell_size(sample, size, inputs.shape[-2:], whole, rescale)
            tags = make_tags(own, found, cell, flip_of(sample))
            sample.set_field(tags, TAGS)
            if self.image_head.gate:
                sample.pred_instances = rescored(
                    sample.pred_instances, tags.scores**self.image_head.gate
                )
        return results


class SegmentorWithImageHead(ImageHeadMixin):
    """An mmseg segmentor with an image-level head.

    Raises:
        ValueError: A gate for a head that has one logit for two classes.
    """

    main_heads = ('decode_head',)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        channels, classes = self.out_channels, self.image_head.num_classes
        if self.image_head.gate and channels != classes:
            raise ValueError(
                f'image_head.gate={self.image_head.gate} weighs the logits of {classes} classes, '
                f'but decode_head.out_channels is {channels}'
            )
        self.found: tuple[Tensor, Sequence[Tensor], Sequence[int]] | None = None

    def inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Computes logits B, K, H, W as the segmentor does, and the image's tags from its maps."""
        sizes = [tuple(meta.get('img_shape', inputs.shape[-2:])[:2]) for meta in batch_img_metas]
        with self.each_last_map() as kept:
            logits = super().inference(inputs, batch_img_metas)
        if self.test_cfg.get('mode') == 'slide':
            own, maps = self.classify_windows(kept, inputs.shape[-2:])
            self.found = own, maps, maps[0].shape[-2:]
        else:
            own, maps = self.classify(kept[-1], sizes, inputs.shape[-2:])
            self.found = own, maps, kept[-1].shape[-2:]
        gate = self.image_head.gate
        if gate and hasattr(self.decode_head, 'cls_embed'):  # MaskFormer's votes are no logits
            return logits * own.sigmoid().pow(gate)[..., None, None]
        if gate:
            logits = logits + gate * functional.logsigmoid(own)[..., None, None]
        return logits

    def classify_windows(
        self, maps: Sequence[Tensor], whole: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns logits B, K and for each image maps K, H', W' from those of sliding windows."""
        window = [min(n, side) for n, side in zip(self.test_cfg.crop_size, whole, strict=True)]
        corners = [
            (min(y, whole[0] - window[0]), min(x, whole[1] - window[1]))
            for y in steps(whole[0], self.test_cfg.crop_size[0], self.test_cfg.stride[0])
            for x in steps(whole[1], self.test_cfg.crop_size[1], self.test_cfg.stride[1])
        ]
        parts = [self.image_head(part, return_maps=True) for part in maps]
        cell = [side / n for side, n in zip(window, maps[0].shape[-2:], strict=True)]
        logits, found = stitched(
            torch.stack([part.logits for part in parts]),
            [part.maps for part in parts], corners, cell, whole,
        )  # fmt: skip
        return logits, list(found)

    def predict(self, inputs: Tensor, data_samples: Sequence | None = None) -> Sequence:
        """Predicts as the segmentor does; every sample gets ``pred_tags`` (:func:`make_tags`)."""
        results = super().predict(inputs, data_samples)
        (logits, maps, whole), self.found = self.found, None
        for sample, own, found in zip(results, logits, maps, strict=True):
            cell = cell_size(sample, image_size(sample, inputs), inputs.shape[-2:], whole, True)
            sample.set_field(make_tags(own, found, cell, flip_of(sample)), TAGS)
        return results


def last_channels(backbone: nn.Module) -> int:
    """Returns the channels of a backbone's last map; a small image tells where it does not."""
    channels = getattr(backbone, 'out_channels', None)
    if isinstance(channels, (list, tuple)):
        return channels[-1]
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()  # statistics must stay
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return backbone(torch.zeros(1, 3, PROBED_SIDE, PROBED_SIDE))[-1].shape[1]
    finally:
        for module, training in modes.items():
            module.training = training


def image_size(sample: Any, inputs: Tensor) -> tuple[int, int]:
    """Returns height and width of an image in a batch, without padding."""
    return tuple(sample.get('img_shape', inputs.shape[-2:])[:2])


def flip_of(sample: Any) -> str | None:
    """Returns how an image was flipped."""
    return sample.get('flip_direction') if sample.get('flip') else None


def cell_size(
    sample: Any, image: Sequence[int], inputs: Sequence[int], whole: Sequence[int], rescale: bool
) -> list[float]:
    """Returns height and width of a map's position in pixels of the original image.

    Args:
        sample: Tells the original's size.
        image: Height and width of the image as the model sees it.
        inputs: Those of the padded batch.
        whole: Those of the padded batch's map.
        rescale: False: in pixels of the image as the model sees it.
    """
    original = sample.get('ori_shape', image)[:2] if rescale else image
    return [
        side / n * before / now
        for side, n, before, now in zip(inputs, whole, original, image, strict=True)
    ]


def steps(side: int, window: int, stride: int) -> list[int]:
    """Returns where mmseg's sliding windows begin along a side, in pixels."""
    return [i * stride for i in range(max(side - window + stride - 1, 0) // stride + 1)]


def rescored(instances: Any, factors: Tensor) -> Any:
    """Returns instances whose scores are weighed by their class, the surest first.

    Args:
        instances: ``InstanceData`` with ``scores`` N and ``labels`` N.
        factors: K.
    """
    instances.scores = instances.scores * factors.to(instances.scores)[instances.labels]
    return instances[instances.scores.argsort(descending=True, stable=True)]
