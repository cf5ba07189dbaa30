"""The blocks of a ResNet (arXiv 1512.03385), with an attention unit on the branch if wanted."""

from collections.abc import Mapping
from typing import Any, ClassVar

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from attnpool_backbones.layers.attention_units import BLOCK_UNITS, ENDING_UNITS
from attnpool_backbones.layers.norm import build_map_norm
from attnpool_backbones.layers.selective_kernel import SelectiveKernel
from attnpool_backbones.ops.conv_norm import conv_norm
from attnpool_backbones.ops.fusing import is_unseen, own


def resnet_conv(w_in: int, w_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Builds a convolution without bias, initialised as ResNets are (arXiv 1502.01852)."""
    conv = nn.Conv2d(w_in, w_out, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
    return conv


class ResidualBlock(nn.Module):
    """ReLU of the sum of a shortcut and a branch, the branch ending in an attention unit.

    Each norm comes after its convolution in the list of modules, as the folding of norms expects.

    Args:
        w_in: Input channels.
        width: Channels of the 3x3 convolutions.
        stride: Of the first 3x3 convolution and of the shortcut.
        attention: The unit of this block, a name of :data:`ATTENTIONS`, or None.
        unit_options: Constructor arguments of the unit, besides the channels.
        drop_path: Probability of dropping the branch of a sample.
        norm_cfg: Of all norms.
    """

    expansion: ClassVar[int]

    def __init__(
        self,
        w_in: int,
        width: int,
        stride: int,
        attention: str | None,
        unit_options: Mapping[str, float],
        drop_path: float,
        norm_cfg: dict,
    ):
        super().__init__()
        w_out = width * self.expansion
        self.relu = nn.ReLU(inplace=True)
        self.build_branch(w_in, width, stride, attention, unit_options, norm_cfg)
        self.downsample = None
        if stride > 1 or w_in != w_out:
            self.downsample = nn.Sequential(
                resnet_conv(w_in, w_out, 1, stride), build_map_norm(norm_cfg, w_out)
            )
        self.attention = attention if attention in BLOCK_UNITS else None
        if self.attention:
            self.add_module(attention, BLOCK_UNITS[attention](w_out, **unit_options))
        self.drop_path = DropPath(drop_path)

    def build_branch(
        self,
        w_in: int,
        width: int,
        stride: int,
        attention: str | None,
        unit_options: Mapping[str, float],
        norm_cfg: dict,
    ) -> None:
        """Adds the branch's layers; takes the constructor's arguments."""
        raise NotImplementedError

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Conv2d, nn.Module]:
        """Computes the branch up to its last convolution; returns its input, it, and its norm."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else conv_norm(x, *self.downsample)
        y, *layers = self.branch(x)
        y = conv_norm(y, *layers)  # B, C, H/s, W/s
        unit = getattr(self, self.attention) if self.attention else None
        if self._ends(unit) and is_unseen(unit, self.drop_path):
            return unit(own(y, *layers), shortcut)
        if unit is not None:
            y, layers = unit(y), [unit]
        y = self.drop_path(y)
        if not is_unseen(*layers, self.drop_path):
            y = y.clone()
        y += shortcut
        return self.relu(y)

    def _ends(self, unit: nn.Module | None) -> bool:
        """Tells whether a unit computes the end of the block along."""
        drops = self.training and getattr(self.drop_path, 'drop_prob', 0)
        return (
            self.attention in ENDING_UNITS
            and type(unit) is BLOCK_UNITS[self.attention]
            and not drops
        )


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (arXiv 1512.03385, fig. 5 left)."""

    expansion = 1

    def build_branch(
        self,
        w_in: int,
        width: int,
        stride: int,
        attention: str | None,
        unit_options: dict[str, Any],
        norm_cfg: dict[str, Any],
    ) -> None:
        self.conv1 = resnet_conv(w_in, width, 3, stride)
        self.bn1 = build_map_norm(norm_cfg, width)
        self.conv2 = resnet_conv(width, width, 3)
        self.bn2 = build_map_norm(norm_cfg, width)

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Conv2d, nn.Module]:
        y = self.relu(conv_norm(x, self.conv1, self.bn1))
        return y, self.conv2, self.bn2


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (arXiv 1512.03385, fig. 5 right), the stride on the 3x3."""

    expansion = 4

    def build_branch(
        self,
        w_in: int,
        width: int,
        stride: int,
        attention: str | None,
        unit_options: dict[str, Any],
        norm_cfg: dict[str, Any],
    ) -> None:
        self.conv1 = resnet_conv(w_in, width, 1)
        self.bn1 = build_map_norm(norm_cfg, width)
        self.sk = None
        if attention == 'sk':
            self.sk = SelectiveKernel(width, stride, norm_cfg=norm_cfg, **unit_options)
        else:
            self.conv2 = resnet_conv(width, width, 3, stride)
            self.bn2 = build_map_norm(norm_cfg, width)
        self.conv3 = resnet_conv(width, width * self.expansion, 1)
        self.bn3 = build_map_norm(norm_cfg, width * self.expansion)

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Conv2d, nn.Module]:
        y = self.relu(conv_norm(x, self.conv1, self.bn1))
        y = self.relu(conv_norm(y, self.conv2, self.bn2)) if self.sk is None else self.sk(y)
        return y, self.conv3, self.bn3
