"""Image-level classification on average pooling."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from attnpool_backbones.heads.attention_pooling_head import ImageLogits
from attnpool_backbones.layers.activations import GELU, Activated
from attnpool_backbones.layers.channel_attention import norm_of_vectors
from attnpool_backbones.ops.fusing import may_fuse
from attnpool_backbones.registry import MODELS

NORMS = {'BN': nn.BatchNorm1d, 'LN': nn.LayerNorm, 'none': lambda channels: nn.Identity()}
"""Norms between pooling and classifier."""


@MODELS.register_module()
class AveragePoolingHead(BaseModule):
    """Average pooling, a norm and a linear classifier on any backbone's last map.

    Its class maps are class activation maps: the classifier of each position's feature, whose mean
    over the positions is the logit without its bias (CAM, arXiv 1512.04150, eq. 2; exact with every
    ``norm`` that is linear).

    Args:
        in_channels: Channels of the map.
        num_classes: Classes.
        norm: Of the pooled features: ``'BN'``, which trains on one image by its running
            statistics, ``'LN'`` or ``'none'``. Default: ``'none'``, as ResNets are published.
        mlp_ratio: Width over ``in_channels`` of a residual MLP at every position, after a layer
            norm, before pooling; it makes up for what attention pooling costs. 0: there is none.
        init_cfg: Initialisation config of mmengine.

    Raises:
        ValueError: An unknown norm.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        norm: str = 'none',
        mlp_ratio: float = 0.0,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        if norm not in NORMS:
            raise ValueError(f"norm='{norm}' must be one of {', '.join(NORMS)}")
        self.num_classes = num_classes
        self.mlp = None
        if mlp_ratio:
            hidden = int(in_channels * mlp_ratio)
            self.mlp_norm = nn.LayerNorm(in_channels, eps=1e-6)
            self.mlp = Activated(
                nn.Linear(in_channels, hidden), GELU(), nn.Linear(hidden, in_channels)
            )
        self.norm = NORMS[norm](in_channels)
        self.classifier = nn.Linear(in_channels, num_classes)
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor | Sequence[Tensor], return_maps: bool = False) -> ImageLogits:
        """Classifies images from their feature maps.

        Args:
            x: A map B, C, H, W, or a backbone's outputs, of which the last is taken.
            return_maps: Whether to return the class activation maps as well.

        Returns:
            Logits B, num_classes and maps B, num_classes, H, W (or None), which may be negative.
        """
        x = x if isinstance(x, Tensor) else x[-1]
        if self.mlp is not None:
            y = self.mlp_norm(x.flatten(2).mT)  # B, H*W, C
            x = (y + self.mlp(y)).mT.unflatten(2, x.shape[2:])
        maps = self._class_maps(x) if return_maps else None  # who watches sees the logits last
        pooled = norm_of_vectors(self.norm, x.mean((2, 3)))
        return ImageLogits(self.classifier(pooled), maps)

    def _class_maps(self, x: Tensor) -> Tensor:
        y = self.norm(x.permute(0, 2, 3, 1).flatten(0, 2))  # B*H*W, C
        if may_fuse(self.classifier):
            maps = functional.linear(y, self.classifier.weight)
        else:  # what it makes of no features is its bias
            maps = self.classifier(y) - self.classifier(torch.zeros_like(y[:1]))
        return maps.unflatten(0, (-1, *x.shape[2:])).permute(0, 3, 1, 2)
