"""Self-attention of any layer: its maps, row by row, and what they are made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnpool_backbones.command_line import UserError
from attnpool_backbones.layers.grid_attention import GridAttention
from attnpool_backbones.layers.re_attention import ReAttention
from attnpool_backbones.layers.token_mixers import SelfAttention2d
from attnpool_backbones.ops.attention import attention_maps
from attnpool_backbones.ops.re_attention import LazyMaps

__all__ = ['ATTENTION_LAYERS', 'Attention', 'attention_of', 'attention_layers']


@dataclass(frozen=True)
class Attention:
    """What an attention layer attends to in one call; maps are computed as far as asked for."""

    q: Tensor
    """Queries B, H, N, d."""
    k: Tensor
    """Keys B, H, N, d."""
    v: Tensor
    """Values B, H, N, d."""
    grid: tuple[int, int] | None
    """Height and width of the map that the tokens are, after the class token; None: not known by
    the layer."""
    table: Tensor | None = None
    """Bias of each head and offset, H, 2h-1, 2w-1, of relative attention."""
    bias_place: str = 'before'
    """Where the bias is added: ``'before'`` or ``'after'`` the softmax."""
    lazy: LazyMaps | None = None
    """Of a layer that mixes its maps."""

    @property
    def tokens(self) -> int:
        return self.q.shape[2]

    @property
    def heads(self) -> int:
        return self.q.shape[1]

    @property
    def mixes(self) -> bool:
        """Whether the softmax maps are changed before they multiply the values.

        Mixed across heads, or with a static kernel added.
        """
        if self.table is not None and self.bias_place == 'after':
            return True
        return self.lazy is not None and (self.lazy.mix is not None or self.lazy.stored is not None)

    def static(self, rows: slice = slice(None)) -> Tensor:
        """Returns the bias of some queries to all keys, H, R, N: the same for every image."""
        height, width = self.grid
        windows = [
            # The bias of query (i, j) and key (r, s) is entry (i - r + height - 1, j - s + ...).
            self.table[:, i : i + height, j : j + width].flip(1, 2).flatten(1)
            for i, j in (divmod(n, width) for n in range(*rows.indices(self.tokens)))
        ]
        return torch.stack(windows, dim=1)

    def adaptive(self, rows: slice = slice(None)) -> Tensor:
        """Returns q k^T / sqrt(d) of some queries, B, H, R, N: what depends on the image."""
        return self.q[:, :, rows] @ self.k.mT * self.q.shape[-1] ** -0.5

    def softmax(self, rows: slice = slice(None)) -> Tensor:
        """Returns the softmax maps of some queries, B, H, R, N."""
        inside = self.table is not None and self.bias_place == 'before'
        bias = self.static(rows).to(self.q.dtype) if inside else None
        return attention_maps(self.q[:, :, rows], self.k, bias)

    def mixed(self, rows: slice = slice(None)) -> Tensor:
        """Returns the maps of some queries that multiply the values, B, H, R, N."""
        if not self.mixes:
            return self.softmax(rows)
        return (
            self.softmax(rows) + self.static(rows) if self.lazy is None else self.lazy.mixed(rows)
        )


def attention_of(
    layer: nn.Module,
    x: Tensor,
    position: tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
) -> Attention:
    """Computes queries, keys and values of a layer.

    Args:
        layer: One of :data:`ATTENTION_LAYERS`.
        x: Its input: a map B, C, h, w or tokens B, N, C.
        position: Row and column of the query that matters, for a layer that attends in windows:
            the answer is about its window alone, after the class token where there is one.
        grid: Height and width of the patches, for tokens that attend in windows.

    Raises:
        ValueError: The layer attends in windows and there is no position, or it is no such layer.
        UserError: The maps of a window depend on the other windows.
    """
    for kind, read in _READERS.items():
        if isinstance(layer, kind):
            if layer.window is not None:
                x = _window_at(layer, x, position, grid)
            return read(layer, x)
    raise ValueError(f'{type(layer).__name__} is no layer of self-attention')


def _window_at(
    layer: nn.Module, x: Tensor, position: tuple[int, int] | None, grid: tuple[int, int] | None
) -> Tensor:
    """Cuts the window of a position out of a layer's input."""
    if position is None:
        raise ValueError('the layer attends in windows: name the query')
    size = x.shape[-2:] if x.dim() == 4 else grid
    rows, columns = (window_of(p, n, layer.window) for p, n in zip(position, size, strict=True))
    if x.dim() == 4:
        return x[:, :, rows, columns]
    patches = x[:, 1:].unflatten(1, grid)[:, rows, columns].flatten(1, 2)
    return torch.cat([x[:, :1], patches], dim=1)


def _re_attention(layer: ReAttention, x: Tensor) -> Attention:
    if layer.window and layer.mixing is not None and layer.mixing.stats_tokens == 'live':
        raise UserError(
            "stats_tokens='live' takes the statistics of all windows together, so that one window "
            "has no maps of its own; 'rescale' and 'fixed' have"
        )
    qkv = layer.qkv(x).unflatten(-1, (3, layer.num_heads, -1))  # B, N, 3, H, d
    # Copies: a view would keep what else the projection made.
    q, k, v = (t.transpose(1, 2).contiguous() for t in qkv.unbind(2))
    lazy = LazyMaps(q, k) if layer.mixing is None else layer.mixing(q, k, v)[1]
    return Attention(q, k, v, None, lazy=lazy)


def _self_attention(layer: SelfAttention2d, x: Tensor) -> Attention:
    qkv = layer.qkv(x.permute(0, 2, 3, 1).flatten(1, 2))  # B, N, 3 * inner
    qkv = qkv.unflatten(-1, (3, layer.num_heads, layer.head_dim))
    q, k, v = (t.transpose(1, 2) for t in qkv.unbind(2))
    return Attention(q, k, v, tuple(x.shape[-2:]))


def _grid_attention(layer: GridAttention, x: Tensor) -> Attention:
    height, width = tuple(x.shape[-2:])
    table = None
    if layer.bias is not None and layer.window is None:
        table = layer.bias(height, width)
    elif layer.bias is not None:
        table = layer.bias(layer.window, layer.window)
        top, left = layer.window - height, layer.window - width
        table = table[:, top : top + 2 * height - 1, left : left + 2 * width - 1]
    qkv = layer.qkv(x.permute(0, 2, 3, 1).flatten(1, 2))
    qkv = qkv.unflatten(-1, (layer.heads, 3, layer.head_dim))  # B, N, H, 3, d
    q, k, v = (t.transpose(1, 2) for t in qkv.unbind(3))
    return Attention(q, k, v, (height, width), table, layer.bias_place)


def window_of(position: int, length: int, window: int) -> slice:
    """Returns the window along one axis that a position lies in; the last may be smaller."""
    start = position // window * window
    return slice(start, min(start + window, length))


_READERS: Mapping[type[nn.Module], Callable[..., Attention]] = {
    ReAttention: _re_attention,
    SelfAttention2d: _self_attention,
    GridAttention: _grid_attention,
}
ATTENTION_LAYERS = tuple(_READERS)
"""Types of layers that :func:`attention_of` knows."""


def attention_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Lists the layers of self-attention of a model, in the order in which they run."""
    return [(n, layer) for n, layer in model.named_modules() if isinstance(layer, ATTENTION_LAYERS)]
