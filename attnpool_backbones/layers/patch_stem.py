"""The stem of a vision transformer (arXiv 2010.11929)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.ops.layout import in_format


class PatchStem(nn.Module):
    """Linear embedding of non-overlapping patches; images are padded at their right and bottom.

    Args:
        width: Output channels.
        patch_size: Side of a patch in pixels.
    """

    def __init__(self, width: int, patch_size: int):
        super().__init__()
        self.patch_size = patch_size
        self.conv = nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        side = self.patch_size
        x = F.pad(x, (0, -x.shape[-1] % side, 0, -x.shape[-2] % side))
        return self.conv(in_format(x, torch.channels_last))  # B, C, H/p, W/p
