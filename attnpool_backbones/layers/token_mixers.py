"""Token mixers of the MetaFormer papers (arXiv 2111.11418, arXiv 2210.13452).

Each takes a map B, C, H, W and returns one of the same shape, ``channels_last`` throughout.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.layers.depthwise_conv import DepthwiseConv2d
from attnpool_backbones.layers.star_relu import StarReLU
from attnpool_backbones.layers.windows import in_windows
from attnpool_backbones.ops.attention import attention
from attnpool_backbones.ops.fusing import own
from attnpool_backbones.ops.linear import linear
from attnpool_backbones.ops.pooling import pool_minus_identity
from attnpool_backbones.ops.resampling import averaged


class Pooling(nn.Module):
    """Average over a window minus the position itself (arXiv 2111.11418, eq. 4).

    Positions outside the map do not count, so that a constant map gives exactly 0.

    Args:
        size: Odd side of the window.

    Raises:
        ValueError: An even size.
    """

    def __init__(self, size: int = 3):
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f'pool_size={size} must be odd, e.g. 3, 5, 7 or 9')
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return pool_minus_identity(x, self.size)


class SpatialFC(nn.Module):
    """One linear layer without bias over the positions of each channel.

    The layer belongs to one grid of positions. On a map of another size it is interpolated in
    factors: average the map to the grid, multiply, interpolate bilinearly back. That is a matrix of
    the map's positions as well, of the rank of the grid, and takes memory linear in positions.

    Args:
        grid: Height and width of the grid.
        random: Whether the matrix is drawn once, with rows that are softmax distributions of
            uniform values, and never trained (arXiv 2210.13452), or learned (arXiv 2111.11418).
    """

    def __init__(self, grid: tuple[int, int], random: bool = False):
        super().__init__()
        self.grid = tuple(grid)
        tokens = self.grid[0] * self.grid[1]
        self.weight = nn.Parameter(torch.empty(tokens, tokens), requires_grad=not random)
        if random:
            self.weight.data.uniform_()
            self.weight.data = self.weight.data.softmax(dim=-1)
        else:
            nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        size = tuple(x.shape[-2:])
        x = _to_grid(x, self.grid)
        x = self.weight @ x.permute(0, 2, 3, 1).flatten(1, 2)  # B, h*w, C
        x = x.unflatten(1, self.grid).permute(0, 3, 1, 2)  # B, C, h, w
        return _from_grid(x, size)


def _to_grid(x: Tensor, grid: tuple[int, int]) -> Tensor:
    return x if tuple(x.shape[-2:]) == grid else averaged(x, grid)


def _from_grid(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=False)


def resize_spatial_matrix(weight: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Interpolates the matrix of a :class:`SpatialFC` to another grid.

    Args:
        weight: Matrix of a grid of h x w positions, h*w, h*w.
        grid: (h, w).
        size: (H, W) of the new grid.

    Returns:
        H*W, H*W: what a layer of ``grid`` does on maps of ``size``.
    """
    layer = SpatialFC(grid)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    tokens = size[0] * size[1]
    units = torch.eye(tokens, dtype=weight.dtype, device=weight.device).view(tokens, 1, *size)
    return layer(units).flatten(1).t().contiguous()


class SeparableConv(nn.Module):
    """Inverted separable convolution (arXiv 1801.04381) as arXiv 2210.13452 uses it.

    Linear C -> 2C, StarReLU, depthwise 7x7, linear 2C -> C, all without bias.

    Args:
        channels: Channels C.
        expansion: Widening of the first linear layer.
        kernel_size: Of the depthwise convolution.
    """

    def __init__(self, channels: int, expansion: int = 2, kernel_size: int = 7):
        super().__init__()
        hidden = channels * expansion
        self.pwconv1 = nn.Linear(channels, hidden, bias=False)
        self.act1 = StarReLU()
        self.dwconv = DepthwiseConv2d(hidden, kernel_size, bias=False)
        self.pwconv2 = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = own(linear(x.permute(0, 2, 3, 1), self.pwconv1), self.pwconv1)
        x = self.act1(x)  # B, H, W, 2C
        x = self.dwconv(x.permute(0, 3, 1, 2))  # B, 2C, H, W
        return linear(x.permute(0, 2, 3, 1), self.pwconv2).permute(0, 3, 1, 2)


class SelfAttention2d(nn.Module):
    """Multi-head self-attention (arXiv 1706.03762) between all positions of a map.

    Args:
        channels: Channels C; there are max(1, C // ``head_dim``) heads.
        head_dim: Channels of a head; the scale is ``head_dim`` ^ -0.5.
        proj_bias: Whether the output projection has a bias; queries, keys and values have none.
        window: Side of the windows in positions, see :func:`in_windows`. Default: one window, the
            map.
    """

    def __init__(
        self, channels: int, head_dim: int = 32, proj_bias: bool = True, window: int | None = None
    ):
        super().__init__()
        self.window = window
        self.head_dim = head_dim
        self.num_heads = max(1, channels // head_dim)
        inner = self.num_heads * head_dim
        self.qkv = nn.Linear(channels, 3 * inner, bias=False)
        self.proj = nn.Linear(inner, channels, bias=proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        qkv = linear(x.permute(0, 2, 3, 1), self.qkv)  # B, H, W, 3 * inner
        y = self._attend(qkv) if self.window is None else in_windows(qkv, self.window, self._attend)
        return linear(y, self.proj).permute(0, 3, 1, 2)

    def _attend(self, qkv: Tensor) -> Tensor:
        """Maps B, H, W, 3 * inner to B, H, W, inner."""
        size = qkv.shape[1:3]
        qkv = qkv.flatten(1, 2).unflatten(-1, (3, self.num_heads, self.head_dim))
        # Cut apart where they lie: their gradients are joined without another copy.
        q, k, v = (t.transpose(1, 2) for t in qkv.unbind(2))  # B, heads, H*W, head_dim each
        return attention(q, k, v).transpose(1, 2).flatten(2).unflatten(1, size)


CHANNELWISE_MIXERS = (Pooling, SpatialFC, nn.Identity)
"""Mixers that do the same linear thing to each channel: a scale per channel passes through them."""


def last_layer(mixer: nn.Module) -> nn.Module | None:
    """Returns the layer whose output is the mixer's, None for :data:`CHANNELWISE_MIXERS`."""
    if isinstance(mixer, CHANNELWISE_MIXERS):
        return None
    if isinstance(mixer, SelfAttention2d):
        return mixer.proj
    return mixer.pwconv2 if isinstance(mixer, SeparableConv) else mixer


TOKEN_MIXERS = (
    'pool', 'identity', 'random', 'dwconv', 'sepconv', 'attention', 'spatial_fc',
)  # fmt: skip
"""Names that :func:`build_token_mixer` takes."""


def build_token_mixer(
    name: str,
    channels: int,
    *,
    grid: tuple[int, int],
    pool_size: int = 3,
    proj_bias: bool = True,
    window: int | None = None,
) -> nn.Module:
    """Builds a token mixer by name.

    Args:
        name: ``'pool'`` (:class:`Pooling`), ``'identity'``, ``'random'`` and ``'spatial_fc'``
            (:class:`SpatialFC`), ``'dwconv'`` (depthwise 3x3 convolution with a bias),
            ``'sepconv'`` (:class:`SeparableConv`) or ``'attention'`` (:class:`SelfAttention2d`).
        channels: Channels of the map.
        grid: Height and width of the map in pretraining, for ``'random'`` and ``'spatial_fc'``.
        pool_size: Of ``'pool'``.
        proj_bias: Of ``'attention'``.
        window: Of ``'attention'``.

    Raises:
        ValueError: An unknown name.
    """
    builders = {
        'pool': lambda: Pooling(pool_size),
        'identity': nn.Identity,
        'random': lambda: SpatialFC(grid, random=True),
        'dwconv': lambda: DepthwiseConv2d(channels, 3),
        'sepconv': lambda: SeparableConv(channels),
        'attention': lambda: SelfAttention2d(channels, proj_bias=proj_bias, window=window),
        'spatial_fc': lambda: SpatialFC(grid),
    }
    if name not in builders:
        raise ValueError(f"token mixer '{name}' must be one of {', '.join(TOKEN_MIXERS)}")
    return builders[name]()
