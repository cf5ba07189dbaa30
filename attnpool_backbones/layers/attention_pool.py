"""Attention pooling that stands wherever average pooling does (arXiv 2112.13692)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnpool_backbones.ops.attention_pool import attention_pool, map_and_pool, position_scores
from attnpool_backbones.registry import MODELS

__all__ = ['AttentionPool2d', 'replace_average_pools', 'take_averages']


@MODELS.register_module()
class AttentionPool2d(nn.Module):
    """Adaptive pooling of a map into bins, each the sum of its positions by learned weights.

    A head's weights are the softmax over a bin of q x / sqrt(C): a query that is the same for all
    images needs no projection to keys, so the cost is near that of an average. The query starts at
    0, where this is adaptive average pooling, and weights of a model with average pooling load: a
    file without the query leaves it as it is, and in a unit of :func:`take_averages` sets it to 0
    if it has the unit's other parameters.

    Args:
        channels: Channels C of the map.
        bins: Rows and columns of the result, one number for both.
        heads: Heads, which share the channels among them.

    Raises:
        ValueError: The channels cannot be shared among the heads.
    """

    def __init__(self, channels: int, bins: int | Sequence[int] = 1, heads: int = 1):
        super().__init__()
        if channels % heads:
            raise ValueError(f'{channels} channels cannot be shared among heads={heads}')
        self.bins = (bins, bins) if isinstance(bins, int) else tuple(bins)
        self.query = nn.Parameter(torch.zeros(heads, channels))

    def forward(self, x: Tensor, with_map: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Pools a map B, C, H, W of any size to B, C, rows, columns.

        Args:
            x: The map.
            with_map: Whether the map is returned, too, for a gate that multiplies it: it saves the
                pool a gradient of the map's size. Default: False.

        Returns:
            The pool; with the map, which may be a factor and nothing else, ahead of it.

        Raises:
            ValueError: ``with_map`` for more than one bin.
        """
        if not with_map:
            return attention_pool(x, self.query, self.bins)
        if self.bins != (1, 1):
            raise ValueError(f'with_map needs one bin, not bins={self.bins}')
        return map_and_pool(x, self.query)

    def scores(self, x: Tensor) -> Tensor:
        """Returns the scores of the positions before the softmax, B, heads, H, W."""
        return position_scores(x, self.query)

    def extra_repr(self) -> str:
        """Says bins and heads."""
        return f'bins={self.bins}, heads={len(self.query)}'

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # an average has no query, and one on meta no values to keep
        if not self.query.is_meta:
            state_dict.setdefault(f'{prefix}query', self.query.detach())
        super()._load_from_state_dict(state_dict, prefix, *args)


def take_averages(unit: nn.Module) -> None:
    """Makes the pools of a unit averages again where weights of the same unit with averages load.

    Files that lack a part of the unit, such as those of adapters and other parts of a model, leave
    the queries as they are.

    Args:
        unit: Has :class:`AttentionPool2d` and layers that are trained with it.
    """
    unit.register_load_state_dict_pre_hook(_add_queries)


def _add_queries(unit: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
    pools = [(name, m) for name, m in unit.named_modules() if isinstance(m, AttentionPool2d)]
    queries = {f'{name}.query': pool.query for name, pool in pools}
    others = (name for name, _ in unit.named_parameters() if name not in queries)
    if all(f'{prefix}{name}' in state_dict for name in others):
        for name, query in queries.items():
            device = 'cpu' if query.is_meta else query.device
            state_dict.setdefault(f'{prefix}{name}', torch.zeros_like(query, device=device))


def replace_average_pools(module: nn.Module, heads: int = 1) -> int:
    """Puts attention pooling in place of every average pooling ahead of a convolution.

    Args:
        module: Any; changed in place. Its pools are the first layers of an ``nn.Sequential`` whose
            next convolution tells the channels, as in PSPNet, UPerNet and ASPP.
        heads: Of each pool.

    Returns:
        How many were replaced.
    """
    replaced = 0
    for part in list(module.modules()):
        if not isinstance(part, nn.Sequential) or len(part) < 2:
            continue
        pool = part[0]
        convolutions = (m for m in part[1].modules() if isinstance(m, nn.Conv2d))
        convolution = next(convolutions, None)
        if isinstance(pool, nn.AdaptiveAvgPool2d) and convolution is not None:
            part[0] = AttentionPool2d(convolution.in_channels, pool.output_size, heads)
            take_averages(part)
            replaced += 1
    return replaced
