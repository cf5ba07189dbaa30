"""Attention pooling on top of a trunk, for the families that have it."""

from torch import Tensor, nn

from attnpool_backbones.backbones.base import DenseBackbone
from attnpool_backbones.layers.attention_pooling import AttentionPooling, PooledTokens


class PooledBackbone(DenseBackbone):
    """A dense backbone that can pool its last map into class tokens (arXiv 2112.13692).

    The constructor of a subclass calls :meth:`build_pooling` after its trunk.
    """

    pool: AttentionPooling | None
    pool_norm: nn.LayerNorm | None

    def build_pooling(self, pooling: bool, channels: int, num_tokens: int, **options) -> None:
        """Sets ``pool`` and ``pool_norm``, to None unless they are wanted.

        Args:
            pooling: Whether they are.
            channels: Of the last map.
            num_tokens: Class tokens.
            **options: Further ones of :class:`AttentionPooling`.
        """
        self.pool = self.pool_norm = None
        if pooling:
            self.pool = AttentionPooling(channels, num_tokens=num_tokens, **options)
            self.pool_norm = nn.LayerNorm(channels, eps=1e-6)

    def adapt_parameter(self, name: str, value: Tensor) -> Tensor | None:
        """Gives each class token the only one of a checkpoint."""
        if name == 'pool.cls_token':
            return self.pool.adapt(value)
        return super().adapt_parameter(name, value)

    def forward_pooled(self, x: Tensor, return_maps: bool = True) -> PooledTokens:
        """Computes image-level features by attention pooling of the last map.

        Args:
            x: Images, B, 3, H, W.
            return_maps: Whether to return the attention maps as well.

        Returns:
            The normalised class tokens B, K, C and the attention maps B, K, ceil(H / s),
            ceil(W / s), where s is the stride of the last map.

        Raises:
            RuntimeError: Built with ``pooling=False``, or without the last stage (columnar: block).
        """
        if self.pool is None or self.out_indices[-1] < self.depth - 1:
            raise RuntimeError(
                f'forward_pooled needs {type(self).__name__}(pooling=True) with the last '
                f'{self.trunk.removesuffix("s")} ({self.depth - 1}) in out_indices, which are '
                f'{self.out_indices}'
            )
        tokens, maps = self.pool(self(x)[-1], return_maps=return_maps)
        return PooledTokens(self.pool_norm(tokens), maps)
