"""Re-attention: self-attention whose maps are mixed across heads (DeepViT, arXiv 2103.11886)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from attnpool_backbones.layers.windows import in_windows
from attnpool_backbones.ops.attention import attention
from attnpool_backbones.ops.linear import linear
from attnpool_backbones.ops.re_attention import LazyMaps, Mixing, re_attention

MAP_NORMS = ('BN', 'LN', None)
"""Norms after the mixing: BatchNorm per head over images, queries and keys (as released),
LayerNorm over the heads of each entry (as most ports have it), none."""

STATS_TOKENS = ('rescale', 'fixed', 'live')
"""What happens with a number of tokens other than the pretraining's; see :class:`HeadMixing`."""


class HeadMixing(nn.Module):
    """The learned part of re-attention: theta, a norm and a scale (arXiv 2103.11886, eq. 3).

    The maps that multiply the values are ``norm(theta P + bias) * scale`` with the softmax maps P.
    BatchNorm's statistics are float32 at least, and those of one process, unless it was converted
    to a SyncBatchNorm (mmengine's ``sync_bn``) and attention is not in windows: how many kinds of
    windows there are depends on the image, so processes could wait for each other without end.

    Entries of P are 1 / N on average: statistics learned with ``pretrain_tokens`` tokens do not
    fit a larger grid, and normalised rows sum to about N times a constant. With the ratio
    t = N / ``pretrain_tokens``, ``stats_tokens`` may be

    - ``'rescale'``: ``norm(theta (t P) + bias) * scale / t``, in training, too. Exactly as
      pretrained at t = 1; copying every token t times changes nothing, and running
      statistics fit all sizes;
    - ``'fixed'``: no correction, the official formula, for the size of the training;
    - ``'live'``: the official formula with the statistics of the batch at inference, too (an
      image's result then depends on the other images). BatchNorm only.

    Measured with every patch token of the golden model ``small_s_like_cal`` (17 tokens, two plain
    blocks before two mixing ones) copied 4, 16 and 64 times, relative error of the last map against
    the uncopied one: ``'rescale'`` 0.08, 0.10, 0.11 (the plain blocks alone: 0.07, 0.10, 0.10, the
    class token being outvoted); ``'live'`` 0.54, 2.4, 9.7; ``'fixed'`` 36, 179, 750; t without
    dividing by t after the norm 0.59, 2.6, 10.5.

    Args:
        num_heads: Heads H.
        pretrain_tokens: Tokens N, class token included, of the pretraining.
        norm: ``'BN'``, ``'LN'`` or None, see ``MAP_NORMS``.
        scale: Factor after the norm.
        stats_tokens: ``'rescale'``, ``'fixed'`` or ``'live'``.

    Raises:
        ValueError: An unknown ``norm`` or ``stats_tokens``.
    """

    def __init__(
        self,
        num_heads: int,
        pretrain_tokens: int,
        norm: str | None = 'BN',
        scale: float = 1.0,
        stats_tokens: str = 'rescale',
    ):
        super().__init__()
        if norm not in MAP_NORMS:
            raise ValueError(f'norm of HeadMixing must be one of {MAP_NORMS}, not {norm!r}')
        if stats_tokens not in STATS_TOKENS or (stats_tokens == 'live' and norm != 'BN'):
            raise ValueError(
                f"stats_tokens of HeadMixing must be one of {STATS_TOKENS} ('live' with norm "
                f"'BN' only), not {stats_tokens!r} with norm {norm!r}"
            )
        self.pretrain_tokens = pretrain_tokens
        self.scale = scale
        self.stats_tokens = stats_tokens
        self.joined, self.over_heads = True, norm == 'LN'
        self.theta = nn.Linear(num_heads, num_heads)
        self.norm = None
        if norm == 'BN':
            self.norm = nn.BatchNorm2d(num_heads)
        elif norm == 'LN':
            self.norm = nn.LayerNorm(num_heads, eps=1e-5)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, LazyMaps]:
        """Attends with mixed maps.

        Args:
            q: Queries B, H, N, d.
            k: Keys B, H, N, d.
            v: Values B, H, N, d.

        Returns:
            B, H, N, d, and access to the maps.
        """
        rescales = self.stats_tokens == 'rescale'
        t = k.shape[2] / self.pretrain_tokens if rescales else 1.0
        live = self.stats_tokens == 'live'
        mixing = Mixing(self.theta, self.norm, self.scale, t, live, self.joined, self.over_heads)
        return re_attention(q, k, v, mixing)

    def adapt(self, weights: Mapping[str, Tensor], tokens: int) -> dict[str, Tensor]:
        """Rewrites weights learned with another number of tokens as if it were this layer's.

        With ``'rescale'`` the factors t of both follow each other by a constant, which theta and
        what comes after the norm can take: the result computes exactly the same.

        Args:
            weights: Of a layer like this one, by its names.
            tokens: Its ``pretrain_tokens``.

        Returns:
            The entries that change.
        """
        ratio = self.pretrain_tokens / tokens
        if ratio == 1 or self.stats_tokens != 'rescale':
            return {}
        if self.norm is None:
            factors = {'theta.bias': 1 / ratio}
        else:
            factors = {'theta.weight': ratio, 'norm.weight': 1 / ratio, 'norm.bias': 1 / ratio}
        dtype = self.theta.weight.dtype  # a shorter one of a file would round the product
        return {n: weights[n].to(dtype) * factor for n, factor in factors.items() if n in weights}


class ReAttention(nn.Module):
    """Multi-head self-attention with or without the mixing of its maps (arXiv 2103.11886).

    Args:
        width: Channels C, a multiple of ``num_heads``.
        num_heads: Heads H.
        mixing: The mixing. Default: none, plain attention.
        window: Side of the windows in patches, see :func:`in_windows`: the patches of a window
            attend to each other and to the class token, which attends to each window apart and
            takes the average over all patches' windows. Default: one window, all tokens.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mixing: HeadMixing | None = None,
        window: int | None = None,
    ):
        super().__init__()
        self.window = window
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.mixing = mixing
        if mixing is not None:
            mixing.joined = window is None
        self.proj = nn.Linear(width, width)
        for layer in (self.qkv, self.proj):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, with_maps: bool = False, grid: tuple[int, int] | None = None
    ) -> Tensor | tuple[Tensor, LazyMaps | None]:
        """Attends.

        Args:
            x: Tokens B, N, C.
            with_maps: Whether to return the maps as well.
            grid: Height and width of the patches, for windows. The class token is the first one.

        Returns:
            Tokens B, N, C; with ``with_maps`` also the :class:`LazyMaps`, None for windows.
        """
        qkv = linear(x, self.qkv).unflatten(-1, (3, self.num_heads, -1))  # B, N, 3, H, d
        if self.window is None:
            out, maps = self._attend(qkv)
        else:
            out, maps = self._attend_in_windows(qkv, grid), None
        out = linear(out, self.proj)  # B, N, C
        return (out, maps) if with_maps else out

    def _attend(self, qkv: Tensor) -> tuple[Tensor, LazyMaps]:
        """Maps B, N, 3, H, d to B, N, C."""
        # Cut apart where they lie: their gradients are joined without another copy.
        q, k, v = (t.transpose(1, 2) for t in qkv.unbind(2))  # B, H, N, d each
        if self.mixing is None:
            out, maps = attention(q, k, v), LazyMaps(q, k)
        else:
            out, maps = self.mixing(q, k, v)
        return out.transpose(1, 2).flatten(2), maps

    def _attend_in_windows(self, qkv: Tensor, grid: tuple[int, int]) -> Tensor:
        of_class, patches = qkv[:, :1], qkv[:, 1:].unflatten(1, grid)
        batch, positions = qkv.shape[0], grid[0] * grid[1]
        shares = []  # of each size of windows in the class token

        def attend(windows: Tensor) -> Tensor:
            n, height, width = windows.shape[:3]
            first = of_class.repeat_interleave(n // batch, dim=0)
            out, _ = self._attend(torch.cat([first, windows.flatten(1, 2)], dim=1))
            share = height * width / positions
            shares.append(out[:, 0].unflatten(0, (batch, -1)).sum(1) * share)
            return out[:, 1:].unflatten(1, (height, width))

        y = in_windows(patches, self.window, attend).flatten(1, 2)  # B, H*W, C
        return torch.cat([sum(shares)[:, None], y], dim=1)
