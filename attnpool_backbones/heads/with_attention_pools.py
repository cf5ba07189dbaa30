"""Any head, with attention pooling in place of its average pooling."""

from typing import Any

from torch import nn

from attnpool_backbones.layers.attention_pool import replace_average_pools
from attnpool_backbones.registry import MODELS

__all__ = ['build_with_attention_pools']


@MODELS.register_module(name='WithAttentionPools')
def build_with_attention_pools(base: str, pool_heads: int = 1, **options: Any) -> nn.Module:
    """Builds a head whose average pools (pyramid pooling, image pooling) attend.

    E.g. ``decode_head=dict(type='attnpool_backbones.WithAttentionPools', base='UPerHead')``. See
    :class:`AttentionPool2d`: at its start and with weights of an average it is the average.

    Args:
        base: Type of the head, e.g. ``'UPerHead'``, ``'PSPHead'``, ``'ASPPHead'``.
        pool_heads: Heads of each pool.
        **options: Arguments of ``base``.

    Raises:
        ValueError: It has no average pooling ahead of a convolution.
    """
    head = MODELS.build(dict(type=base, **options))
    if not replace_average_pools(head, pool_heads):
        raise ValueError(
            f'base={base!r} of WithAttentionPools has no average pooling ahead of a convolution; '
            'UPerHead, PSPHead and ASPPHead have'
        )
    return head
