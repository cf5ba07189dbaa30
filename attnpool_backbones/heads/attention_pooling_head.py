"""Image-level classification on attention pooling (PatchConvNet, arXiv 2112.13692)."""

from collections.abc import Sequence
from typing import NamedTuple

from mmengine.model import BaseModule
from torch import Tensor, nn

from attnpool_backbones.layers.attention_pooling import AttentionPooling
from attnpool_backbones.ops.fusing import may_fuse
from attnpool_backbones.registry import MODELS


class ImageLogits(NamedTuple):
    """What :class:`AttentionPoolingHead` returns."""

    logits: Tensor
    """B, num_classes."""
    maps: Tensor | None
    """Attention B, K, H, W over the positions of the map, or None if not asked for."""


@MODELS.register_module()
class AttentionPoolingHead(BaseModule):
    """Attention pooling, a layer norm and a linear classifier on any backbone's last map.

    With one class token all classes read the same pooled vector. With one per class, class i
    reads its own token by its own weight vector, and its attention map shows where class i is
    looked for.

    Args:
        in_channels: Channels of the map.
        num_classes: Classes.
        per_class: One class token per class instead of one for all.
        mlp_ratio: Of the pooling layer.
        layer_scale_init: Of the pooling layer.
        init_std: Of the pooling layer.
        init_cfg: Initialisation config of mmengine.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        per_class: bool = False,
        mlp_ratio: float = 3.0,
        layer_scale_init: float = 1e-4,
        init_std: float | None = 0.02,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        self.num_classes = num_classes
        self.pool = AttentionPooling(
            in_channels,
            num_tokens=num_classes if per_class else 1,
            mlp_ratio=mlp_ratio,
            layer_scale_init=layer_scale_init,
            init_std=init_std,
        )
        self.norm = nn.LayerNorm(in_channels, eps=1e-6)
        self.classifier = nn.Linear(in_channels, num_classes)
        self.per_class = per_class
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor | Sequence[Tensor], return_maps: bool = False) -> ImageLogits:
        """Classifies images from their feature maps.

        Args:
            x: A map B, C, H, W, or a backbone's outputs, of which the last is taken.
            return_maps: Whether to return the attention maps as well.

        Returns:
            Logits B, num_classes and maps B, K, H, W (or None).
        """
        x = x if isinstance(x, Tensor) else x[-1]
        tokens, maps = self.pool(x, return_maps=return_maps)  # B, K, C
        tokens = self.norm(tokens)
        if not self.per_class:
            return ImageLogits(self.classifier(tokens[:, 0]), maps)
        if not may_fuse(self.classifier) or self.classifier.bias is None:
            return ImageLogits(self.classifier(tokens).diagonal(dim1=1, dim2=2), maps)
        # K separate Linear(C, 1): one dot product a class.
        logits = (tokens * self.classifier.weight).sum(2)
        return ImageLogits(logits + self.classifier.bias, maps)
