"""Normalisation of B, C, H, W maps over their channels."""

from torch import Tensor, nn

from attnpool_backbones.config_types import type_name
from attnpool_backbones.ops.fusing import plain
from attnpool_backbones.ops.group_norm import group_norm
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


class GroupNorm2d(nn.GroupNorm):
    """Group normalisation of a map, which may come from frozen layers on a CPU.

    Args:
        num_groups: Groups of channels.
        num_channels: Channels C of the map.
        **options: Of ``nn.GroupNorm``.
    """

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


OWN = dict(LN=LayerNorm2d, LayerNorm=LayerNorm2d, GN=GroupNorm2d, GroupNorm=GroupNorm2d)
"""Norms that are not mmcv's, by the names of their types."""


def build_map_norm(norm_cfg: dict, num_channels: int) -> nn.Module:
    """Builds a normalisation of B, C, H, W maps from an OpenMMLab ``norm_cfg``.

    Args:
        norm_cfg: ``dict(type='LN')`` is :class:`LayerNorm2d` with ``eps`` 1e-6 unless given;
            ``dict(type='GN', num_groups=32)`` is :class:`GroupNorm2d`; every other type
            (``'BN'``, ``'SyncBN'`` ...) is built by mmcv. Its
            ``requires_grad`` (default: True) tells whether weight and bias are trained.
        num_channels: Channels of the map.

    Returns:
        The layer.

    Raises:
        KeyError: The type is in no registry.
    """
    from mmcv.cnn import build_norm_layer

    own = OWN.get(type_name(norm_cfg))
    if own is not None:
        options = {key: value for key, value in norm_cfg.items() if key != 'type'}
        requires_grad = options.pop('requires_grad', True)
        return own(num_channels=num_channels, **options).requires_grad_(requires_grad)
    return build_norm_layer(norm_cfg, num_channels)[1]
