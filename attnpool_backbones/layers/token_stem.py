"""Image to tokens: the patch embedding of a vision transformer (arXiv 2010.11929, section 3.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.layers.folding import fold_norm_after
from attnpool_backbones.layers.position_embedding import resize_position_embedding
from attnpool_backbones.ops.conv_norm import conv_norm
from attnpool_backbones.ops.fusing import is_unseen
from attnpool_backbones.ops.layout import in_format

CNN_WIDTH = 64
"""Channels of the two convolutions before a convolutional patch embedding."""


class TokenStem(nn.Module):
    """Image to tokens: patch embedding, class token, position embedding.

    Images are padded with zeros at the right and at the bottom to a multiple of the stride.

    Args:
        width: Channels C of the tokens.
        stride: Edge of a patch in pixels.
        grid: Edge of the position table in patches.
        cnn: Whether two convolutions precede the embedding.
    """

    undecayed = ('cls_token', 'pos_embed')

    def __init__(self, width: int, stride: int, grid: int, cnn: bool):
        super().__init__()
        self.stride = stride
        self.cnn = cnn
        if cnn:
            self.conv1 = nn.Conv2d(3, CNN_WIDTH, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(CNN_WIDTH)
            self.conv2 = nn.Conv2d(CNN_WIDTH, CNN_WIDTH, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(CNN_WIDTH)
        patch = stride // 2 if cnn else stride
        self.proj = nn.Conv2d(CNN_WIDTH if cnn else 3, width, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def embed(self, x: Tensor) -> Tensor:
        """Embeds the patches of images B, 3, H, W; returns a map B, C, H / stride, W / stride."""
        stride = self.stride
        bottom, right = ((n + stride - 1) // stride * stride - n for n in x.shape[-2:])
        # a recorded graph pads by nothing too: a branch would hold for sizes like the example's
        if torch.compiler.is_compiling() or bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        if self.cnn:
            x = in_format(x, torch.channels_last)
            for layers in ((self.conv1, self.bn1), (self.conv2, self.bn2)):
                y = conv_norm(x, *layers)
                x = F.relu(y, inplace=is_unseen(*layers))  # B, 64, H/2, W/2
        return self.proj(x)  # B, C, H/stride, W/stride

    def forward(self, x: Tensor) -> Tensor:
        """Returns the tokens B, 1 + N, C of images B, 3, H, W, the class token first."""
        x = self.embed(x)
        positions = resize_positions(self.pos_embed, x.shape[-2:])
        x = x.flatten(2).transpose(1, 2)  # B, N, C
        return torch.cat([self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1), x], 1) + positions

    def fold(self) -> None:
        """Folds the BatchNorms into the convolutions for inference."""
        if self.cnn:
            self.bn1 = fold_norm_after(self.conv1, self.bn1)
            self.bn2 = fold_norm_after(self.conv2, self.bn2)


def resize_positions(table: Tensor, grid: Sequence[int]) -> Tensor:
    """Resizes a position table whose first entry is the class token's.

    Args:
        table: 1, 1 + S * S, C.
        grid: Rows and columns of the wanted grid.

    Returns:
        1, 1 + rows * columns, C; ``table`` itself if it has that grid.
    """
    edge = round(int(table.shape[1] - 1) ** 0.5)  # a tensor under torch.jit.trace
    if tuple(grid) == (edge, edge):
        return table
    patches = table[:, 1:].transpose(1, 2).unflatten(2, (edge, edge))  # 1, C, S, S
    patches = resize_position_embedding(patches, tuple(grid))  # 1, C, rows, columns
    return torch.cat([table[:, :1], patches.flatten(2).transpose(1, 2)], 1)
