"""Which classes an image has, and where they are, learned beside a detector or a segmentor."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from attnpool_backbones.heads.attention_pooling_head import ImageLogits
from attnpool_backbones.heads.grad_cam import grad_cam
from attnpool_backbones.registry import MODELS

__all__ = ['ImageTagHead']

MAX_CHANNELS = 256
ATTENTION = dict(
    type='attnpool_backbones.AttentionPoolingHead',
    per_class=True,
    layer_scale_init=1.0,
    init_std=None,
)
"""One class token per class; one layer beside a detector needs no slow start."""


@MODELS.register_module()
class ImageTagHead(BaseModule):
    """Multi-label classification of a map by attention pooling (arXiv 2112.13692).

    :class:`WithImageHead` puts it beside a detector or a segmentor. It draws its initial weights
    without touching the state of torch's generator, so that all else of a training stays as it is
    without this head.

    Args:
        in_channels: Channels C of the map.
        num_classes: Classes K.
        pooling: Config of what classifies the map: a head with the arguments ``in_channels`` and
            ``num_classes``, e.g. ``dict(type='attnpool_backbones.AveragePoolingHead')``. Default:
            :class:`AttentionPoolingHead` with one class token per class.
        use_grad_cam: Whether the class maps are those of Grad-CAM in place of the head's own.
        loss_weight: Factor of the loss. With 0 the head is frozen and left out of training.
        gate: Exponent g of the image-level evidence p in predictions: a score of class k becomes
            score * p_k^g. 0 leaves predictions as they are.
        max_channels: A map of more channels is projected to so many first.
        init_cfg: Initialisation config of mmengine.

    Raises:
        ValueError: A weight or a gate below 0.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        pooling: Mapping[str, Any] | None = None,
        use_grad_cam: bool = False,
        loss_weight: float = 1.0,
        gate: float = 0.0,
        max_channels: int = MAX_CHANNELS,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        for name, value in (('loss_weight', loss_weight), ('gate', gate)):
            if value < 0:
                raise ValueError(f'{name} of ImageTagHead is {value}, but has to be 0 or more')
        self.num_classes = num_classes
        self.use_grad_cam = use_grad_cam
        self.loss_weight = loss_weight
        self.gate = gate
        channels = min(in_channels, max_channels)
        with torch.random.fork_rng(devices=[]):
            self.reduce = nn.Conv2d(in_channels, channels, 1) if in_channels > channels else None
            self.pooling = MODELS.build(
                dict(pooling or ATTENTION, in_channels=channels, num_classes=num_classes)
            )
        if loss_weight == 0:
            # a parameter without gradient may be left out by DDP, clipping and optimizers
            self.requires_grad_(False)

    def init_weights(self) -> None:
        """Draws weights as ``init_cfg`` says, with the generator's state kept."""
        with torch.random.fork_rng(devices=[]):
            super().init_weights()

    def forward(self, x: Tensor, return_maps: bool = False) -> ImageLogits:
        """Classifies images from a feature map.

        Args:
            x: Map B, C, H, W, without padding.
            return_maps: Whether to return the class maps as well.

        Returns:
            Logits B, K and maps B, K, H, W (or None).
        """
        if return_maps and self.use_grad_cam:
            return ImageLogits(self(x).logits, grad_cam(lambda x: self(x).logits, x))
        if self.reduce is not None:
            x = self.reduce(x)
        return self.pooling(x, return_maps=return_maps)

    def loss(self, logits: Tensor, tags: Tensor) -> Tensor:
        """Computes the binary cross entropy, as the mean over images and classes.

        Args:
            logits: B, K.
            tags: B, K: 1 where the image has the class, 0 where not, -1 where it is not known.

        Returns:
            A number, times ``loss_weight``.
        """
        known = (tags >= 0).float()
        total = functional.binary_cross_entropy_with_logits(
            logits.float(), tags.clamp(min=0).float(), weight=known, reduction='sum'
        )
        return total * (self.loss_weight / known.sum().clamp(min=1))
