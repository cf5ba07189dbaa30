"""Biases of relative attention: one value a head and offset between query and key."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.ops.precision import wide_dtype


def resize_bias_table(table: Tensor, height: int, width: int, keep_sum: bool = False) -> Tensor:
    """Interpolates a table of offsets for another grid, bilinearly (arXiv 2106.04803, A.1).

    Args:
        table: Bias h, 2H-1, 2W-1, offset 0 in the middle.
        height: Of the new grid.
        width: Of the new grid.
        keep_sum: Whether to divide by the growth of the grid, so that a kernel which is summed over
            its positions keeps its strength. Default: False.

    Returns:
        h, 2*height-1, 2*width-1; the table itself if it has that size.
    """
    size = (2 * height - 1, 2 * width - 1)
    if table.shape[1:] == size:
        return table
    # The kernels know no narrower type on every device, and the table is small.
    wide = table[None].to(wide_dtype(table.dtype))
    resized = F.interpolate(wide, size, mode='bilinear', align_corners=False)
    if keep_sum:
        before = (table.shape[1] + 1) * (table.shape[2] + 1) / 4  # positions
        resized = resized * (before / (height * width))
    return resized[0].to(table.dtype)


class RelativeBiasTable(nn.Module):
    """A learned bias for each offset of the pretraining grid (arXiv 2106.04803, section 3.1).

    Args:
        num_heads: Heads h.
        grid: Height and width of the map in pretraining, in tokens.
        keep_sum: For another grid; see :func:`resize_bias_table`. Default: False.
    """

    undecayed = ('relative_position_bias_table',)

    def __init__(self, num_heads: int, grid: tuple[int, int], keep_sum: bool = False):
        super().__init__()
        self.grid = grid
        self.keep_sum = keep_sum
        rows = (2 * grid[0] - 1) * (2 * grid[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.empty(rows, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, height: int, width: int) -> Tensor:
        """Returns the bias of each offset in a grid, h, 2*height-1, 2*width-1.

        Entry (a, b) belongs to a query a - height + 1 rows and b - width + 1 columns after its
        key. For a grid other than that of pretraining it is interpolated.
        """
        table = self.relative_position_bias_table.t().unflatten(1, (2 * self.grid[0] - 1, -1))
        return resize_bias_table(table, height, width, self.keep_sum)

    def adapt(self, value: Tensor) -> Tensor | None:
        """Interpolates a checkpoint's table of a square grid; None if it cannot be one.

        Args:
            value: (2n-1)^2, heads.
        """
        side = round(len(value) ** 0.5)
        heads = self.relative_position_bias_table.shape[1]
        if value.dim() != 2 or side * side != len(value) or side % 2 == 0:
            return None
        if value.shape[1] != heads:
            return None
        table = value.t().unflatten(1, (side, side))
        table = resize_bias_table(table, *self.grid, self.keep_sum)
        return table.flatten(1).t().contiguous()


class RelativeBiasMlp(nn.Module):
    """The bias as a small network of the offset's logarithm: for any grid, nothing to resize.

    Each component of the offset, in tokens, enters as sign(d) * log(1 + |d|) (the coordinates of
    arXiv 2111.09883, eq. 4); two layers with ReLU between them give one value a head.

    Args:
        num_heads: Heads h.
        hidden: Width between the two layers.
        dropout: After the activation, in training.
    """

    def __init__(self, num_heads: int, hidden: int = 512, dropout: float = 0.125):
        super().__init__()
        self.fc1 = nn.Linear(2, hidden)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, num_heads)

    def forward(self, height: int, width: int) -> Tensor:
        """Returns the bias of each offset in a grid, h, 2*height-1, 2*width-1."""
        like = next(self.parameters(), torch.empty(0))  # quantised layers have no parameters
        options = dict(dtype=like.dtype, device=like.device)
        offsets = torch.meshgrid(
            torch.arange(1 - height, height, **options),
            torch.arange(1 - width, width, **options),
            indexing='ij',
        )
        offsets = torch.stack(offsets, dim=-1)  # 2H-1, 2W-1, 2
        coordinates = offsets.sign() * offsets.abs().log1p()
        bias = self.fc2(self.dropout(F.relu(self.fc1(coordinates))))  # 2H-1, 2W-1, h
        return bias.permute(2, 0, 1)
