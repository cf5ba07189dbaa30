"""Normalisation of B, C, H, W maps over their channels."""

from torch import Tensor, nn

from attnpool_backbones.config_types import type_name
from attnpool_backbones.ops.fusing import plain
from attnpool_backbones.ops.layer_norm import layer_norm2d


@plain
class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of each position (arXiv 1607.06450) of a map.

    The result is ``channels_last``.

    Args:
        num_channels: Channels C of the map.
        eps: Added to the variance.
        bias: Whether the affine transform has a shift.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6, bias: bool = True):
        super().__init__(num_channels, eps=eps, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm2d(x, self.weight, self.bias, self.eps)


def build_map_norm(norm_cfg: dict, num_channels: int) -> nn.Module:
    """Builds a normalisation of B, C, H, W maps from an OpenMMLab ``norm_cfg``.

    Args:
        norm_cfg: ``dict(type='LN')`` is :class:`LayerNorm2d` with ``eps`` 1e-6 unless given;
            every other type (``'BN'``, ``'SyncBN'``, ``'GN'`` ...) is built by mmcv. Its
            ``requires_grad`` (default: True) tells whether weight and bias are trained.
        num_channels: Channels of the map.

    Returns:
        The layer.

    Raises:
        KeyError: The type is in no registry.
    """
    from mmcv.cnn import build_norm_layer

    if type_name(norm_cfg) == 'LN' or norm_cfg.get('type') is nn.LayerNorm:
        options = {key: value for key, value in norm_cfg.items() if key != 'type'}
        requires_grad = options.pop('requires_grad', True)
        return LayerNorm2d(num_channels, **options).requires_grad_(requires_grad)
    return build_norm_layer(norm_cfg, num_channels)[1]
