"""Re-attention: self-attention whose maps are mixed across heads (DeepViT, arXiv 2103.11886)."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.layers.full_precision import full_precision, wide_dtype
from attnpool_backbones.layers.mixed_attention import map_covariance, mixed_attention

MAP_NORMS = ('BN', 'LN', None)
"""Norms behind the mixing: BatchNorm per head over images, queries and keys (as released),
LayerNorm over the heads of each entry (as most ports have it), none."""

STATS_TOKENS = ('rescale', 'fixed', 'live')
"""What happens with a number of tokens other than the pretraining's; see :class:`HeadMixing`."""


class HeadMix(NamedTuple):
    """How the maps of all heads make the maps that multiply the values."""

    matrix: Tensor
    """H, H: row g holds the weights of all heads in map g."""
    offset: Tensor
    """H: added to every entry of a mixed map."""
    eps: float | None = None
    """If given, each entry's H values are divided by sqrt(mean of squares + eps) ..."""
    scale: Tensor | None = None
    """... and multiplied by this, H, ..."""
    shift: Tensor | None = None
    """... and this, H, is added."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, chunk_rows: int = 0) -> Tensor:
        """Applies the mixed maps to the values, without ever holding all of a map.

        Args:
            q: Queries B, H, N, d.
            k: Keys B, H, N, d.
            v: Values B, H, N, d.
            chunk_rows: See :func:`mixed_attention`.

        Returns:
            B, H, N, d.
        """
        if self.eps is None:
            out, shift = mixed_attention(q, k, v, self.matrix, chunk_rows=chunk_rows), self.offset
        else:
            out = mixed_attention(q, k, v, self.matrix, self.offset, self.eps, chunk_rows)
            out, shift = out * self.scale.view(-1, 1, 1), self.shift
        # A constant in the map adds the sum of all values to every row.
        total = v.sum(2, keepdim=True, dtype=self.matrix.dtype)  # B, H, 1, d
        return (out + shift.view(-1, 1, 1) * total).to(v.dtype)

    def maps(self, softmax_maps: Tensor) -> Tensor:
        """Mixes given softmax maps B, H, R, N (any part of the rows)."""
        with full_precision(softmax_maps.device):
            flat = softmax_maps.flatten(2).to(self.matrix.dtype)
            mixed = torch.matmul(self.matrix, flat).unflatten(2, softmax_maps.shape[2:])
        mixed = mixed + self.offset.view(-1, 1, 1)
        if self.eps is None:
            return mixed
        mixed = mixed * torch.rsqrt(mixed.square().mean(1, keepdim=True) + self.eps)
        return mixed * self.scale.view(-1, 1, 1) + self.shift.view(-1, 1, 1)


class LazyMaps(NamedTuple):
    """The attention maps of a layer, computed when and as far as they are asked for."""

    q: Tensor
    """Queries B, H, N, d."""
    k: Tensor
    """Keys B, H, N, d."""
    mix: HeadMix | None
    """None: plain attention."""

    def softmax(self, rows: slice = slice(None)) -> Tensor:
        """Returns softmax(q k^T / sqrt(d)) of some query rows, B, H, R, N, at least float32."""
        q = self.q[:, :, rows]
        with full_precision(q.device):
            scores = (q @ self.k.mT) * q.shape[-1] ** -0.5
        wide = wide_dtype(q.dtype)
        return scores.softmax(-1, dtype=wide)

    def mixed(self, rows: slice = slice(None)) -> Tensor:
        """Returns some rows of the maps that multiply the values, B, H, R, N."""
        maps = self.softmax(rows)
        return maps if self.mix is None else self.mix.maps(maps)


class HeadMixing(nn.Module):
    """The learned part of re-attention: theta, a norm and a scale (arXiv 2103.11886, eq. 3).

    The maps that multiply the values are ``norm(theta P + bias) * scale`` with the softmax maps P.
    BatchNorm's statistics follow from P's H x H covariance, so that norm and scale fold into a
    matrix and an offset in training, too. They are float32 at least, and those of one process.

    Entries of P are 1 / N on average: statistics learned with ``pretrain_tokens`` tokens do not
    fit a larger grid, and normalised rows sum to about N times a constant. With the ratio
    t = N / ``pretrain_tokens``, ``stats_tokens`` may be

    - ``'rescale'``: ``norm(theta (t P) + bias) * scale / t``, in training, too. Exactly as
      pretrained at t = 1; copying every token t times changes nothing, and running
      statistics fit all sizes;
    - ``'fixed'``: no correction, the official formula. For statistics of the size at hand (see
      :func:`attnpool_backbones.engine.recalibration.recalibrate_statistics`);
    - ``'live'``: the official formula with the statistics of the batch at inference, too (an
      image's result then depends on the other images). BatchNorm only.

    Measured with every patch token of the golden model ``small_s_like_cal`` (17 tokens, two plain
    blocks before two mixing ones) copied 4, 16 and 64 times, relative error of the last map against
    the uncopied one: ``'rescale'`` 0.08, 0.10, 0.11 (the plain blocks alone: 0.07, 0.10, 0.10, the
    class token being outvoted); ``'live'``, and ``'fixed'`` with recalibrated statistics, 0.54,
    2.4, 9.7; ``'fixed'`` 36, 179, 750; t without dividing by t behind the norm 0.59, 2.6, 10.5.

    Args:
        num_heads: Heads H.
        pretrain_tokens: Tokens N, class token included, of the pretraining.
        norm: ``'BN'``, ``'LN'`` or None, see ``MAP_NORMS``.
        scale: Factor behind the norm.
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
        self.theta = nn.Linear(num_heads, num_heads)
        self.norm = None
        if norm == 'BN':
            self.norm = nn.BatchNorm2d(num_heads)
        elif norm == 'LN':
            self.norm = nn.LayerNorm(num_heads, eps=1e-5)

    def forward(self, q: Tensor, k: Tensor) -> HeadMix:
        """Tells how to mix the maps of queries and keys B, H, N, d."""
        tokens = k.shape[2]
        t = tokens / self.pretrain_tokens if self.stats_tokens == 'rescale' else 1.0
        wide = wide_dtype(self.theta.weight.dtype)
        with full_precision(q.device):
            theta, bias = self.theta.weight.to(wide), self.theta.bias.to(wide)
            if self.norm is None:
                return HeadMix(theta * self.scale, bias * (self.scale / t))
            gamma, beta = (p.to(wide) for p in (self.norm.weight, self.norm.bias))
            if isinstance(self.norm, nn.LayerNorm):
                return HeadMix(
                    # Subtracting the mean over heads is linear; what is left divides by the RMS.
                    (theta - theta.mean(0)) * t,
                    bias - bias.mean(),
                    self.norm.eps,
                    gamma * (self.scale / t),
                    beta * (self.scale / t),
                )
            if self.norm.training or self.stats_tokens == 'live':
                covariance = map_covariance(q, k).to(wide) * t**2
                mean = theta.sum(1) * (t / tokens) + bias
                var = ((theta @ covariance) * theta).sum(1)
                if self.norm.training and self.norm.track_running_stats:
                    self._track(mean, var, q.shape[0] * q.shape[2] * tokens)
            else:
                mean, var = self.norm.running_mean, self.norm.running_var
            gain = gamma * torch.rsqrt(var + self.norm.eps) * self.scale  # H
            return HeadMix(gain[:, None] * theta, (gain * (bias - mean) + beta * self.scale) / t)

    def adapt(self, weights: Mapping[str, Tensor], tokens: int) -> dict[str, Tensor]:
        """Rewrites weights learned with another number of tokens as if it were this layer's.

        With ``'rescale'`` the factors t of both follow each other by a constant, which theta and
        what stands behind the norm can take: the result computes exactly the same.

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
        return {name: weights[name] * factor for name, factor in factors.items() if name in weights}

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Updates the running statistics as ``nn.BatchNorm2d`` does."""
        norm = self.norm
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += 1
        weight = norm.momentum
        if weight is None:  # a plain average
            weight = 1 / norm.num_batches_tracked.to(mean.dtype)
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), weight)
        unbiased = var * (count / max(count - 1, 1))
        norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), weight)


class ReAttention(nn.Module):
    """Multi-head self-attention with or without the mixing of its maps (arXiv 2103.11886).

    Args:
        width: Channels C, a multiple of ``num_heads``.
        num_heads: Heads H.
        mixing: The mixing. Default: none, plain attention.
    """

    def __init__(self, width: int, num_heads: int, mixing: HeadMixing | None = None):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.mixing = mixing
        self.proj = nn.Linear(width, width)
        for linear in (self.qkv, self.proj):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, with_maps: bool = False) -> Tensor | tuple[Tensor, LazyMaps]:
        """Attends.

        Args:
            x: Tokens B, N, C.
            with_maps: Whether to return the maps as well.

        Returns:
            Tokens B, N, C; with ``with_maps`` also the :class:`LazyMaps`.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # B, N, 3, H, d
        # Cut apart where they lie: their gradients are joined without another copy.
        q, k, v = (t.transpose(1, 2) for t in qkv.unbind(2))  # B, H, N, d each
        mix = None
        if self.mixing is None:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            mix = self.mixing(q, k)
            out = mix.attend(q, k, v)
        out = self.proj(out.transpose(1, 2).flatten(2))  # B, N, C
        return (out, LazyMaps(q, k, mix)) if with_maps else out
