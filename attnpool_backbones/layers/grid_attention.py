"""Self-attention of a map's positions, over the whole grid or in windows."""

from torch import Tensor, nn

from attnpool_backbones.layers.windows import in_windows
from attnpool_backbones.ops.attention import attention
from attnpool_backbones.ops.kernel_attention import kernel_attention
from attnpool_backbones.ops.linear import linear
from attnpool_backbones.ops.relative_attention import relative_attention


class GridAttention(nn.Module):
    """Multi-head self-attention of a map with a bias per offset (arXiv 2106.04803).

    Memory is linear in the positions.

    Args:
        in_channels: Channels of the input.
        channels: Channels of queries, keys and values, a multiple of ``head_dim``.
        out_channels: Channels of the output.
        head_dim: Channels of a head.
        bias: Called with a height and a width, gives the bias of each offset, heads, 2H-1, 2W-1.
            Default: none.
        window: Side of the windows in positions, see :func:`in_windows`. Default: one window, the
            map.
        bias_place: ``'before'`` the softmax, or ``'after'`` it, where the bias is a static kernel
            beside the maps (arXiv 2106.04803, eq. 3). Default: ``'before'``.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        head_dim: int = 32,
        bias: nn.Module | None = None,
        window: int | None = None,
        bias_place: str = 'before',
    ):
        super().__init__()
        self.heads = channels // head_dim
        self.head_dim = head_dim
        self.window = window
        self.bias_place = bias_place
        # Head by head: queries, keys and values of the first head, then of the second ...
        self.qkv = nn.Linear(in_channels, 3 * channels)
        self.bias = bias
        self.proj = nn.Linear(channels, out_channels)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Computes ``scale * attention(x)``.

        Args:
            x: Map B, C, H, W.
            scale: One factor per output channel, C'. Default: 1.

        Returns:
            Map B, C', H, W.
        """
        qkv = linear(x.permute(0, 2, 3, 1), self.qkv)
        qkv = qkv.unflatten(-1, (self.heads, 3, self.head_dim))  # B, H, W, h, 3, d
        y = self._attend(qkv) if self.window is None else self._attend_in_windows(qkv)
        return linear(y, self.proj, scale).permute(0, 3, 1, 2)

    def _attend(self, qkv: Tensor, table: Tensor | None = None) -> Tensor:
        """Maps B, H, W, h, 3, d to B, H, W, h*d; the table is made for H, W unless given."""
        size = qkv.shape[1:3]
        if self.bias is not None and table is None:
            table = self.bias(*size)
        # Cut apart where they lie: their gradients are joined without another copy.
        q, k, v = (t.transpose(1, 2) for t in qkv.flatten(1, 2).unbind(3))  # B, h, H*W, d
        if table is None:
            y = attention(q, k, v)
        elif self.bias_place == 'before':
            y = relative_attention(q, k, v, table)
        else:
            y = kernel_attention(q, k, v, table)
        return y.transpose(1, 2).flatten(2).unflatten(1, size)

    def _attend_in_windows(self, qkv: Tensor) -> Tensor:
        table = None if self.bias is None else self.bias(self.window, self.window)

        def attend(windows: Tensor) -> Tensor:
            if table is None:
                return self._attend(windows)
            height, width = windows.shape[1:3]
            top, left = self.window - height, self.window - width
            inner = table[:, top : top + 2 * height - 1, left : left + 2 * width - 1]
            return self._attend(windows, inner)

        return in_windows(qkv, self.window, attend)
