"""Image-level classification on average pooling."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from attnpool_backbones.heads.attention_pooling_head import ImageLogits
from attnpool_backbones.registry import MODELS

NORMS = {'BN': nn.BatchNorm1d, 'LN': nn.LayerNorm, 'none': lambda channels: nn.Identity()}
"""Norms between pooling and classifier."""


@MODELS.register_module()
class AveragePoolingHead(BaseModule):
    """Average pooling, a norm and a linear classifier on any backbone's last map.

    Args:
        in_channels: Channels of the map.
        num_classes: Classes.
        norm: Of the pooled features: ``'BN'``, ``'LN'`` or ``'none'``. Default: ``'none'``, as
            ResNets are published.
        init_cfg: Initialisation config of mmengine.

    Raises:
        ValueError: An unknown norm.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        norm: str = 'none',
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        if norm not in NORMS:
            raise ValueError(f"norm='{norm}' must be one of {', '.join(NORMS)}")
        self.num_classes = num_classes
        self.norm = NORMS[norm](in_channels)
        self.classifier = nn.Linear(in_channels, num_classes)
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor | Sequence[Tensor]) -> ImageLogits:
        """Classifies images from their feature maps.

        Args:
            x: A map B, C, H, W, or a backbone's outputs, of which the last is taken.

        Returns:
            Logits B, num_classes; there are no maps.
        """
        x = x if isinstance(x, Tensor) else x[-1]
        return ImageLogits(self.classifier(self.norm(x.mean((2, 3)))), None)
