"""Re-attention: attention whose maps are mixed across heads and normalised (arXiv 2103.11886)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from attnpool_backbones.ops.attention import attention_maps
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.fusing import may_fuse
from attnpool_backbones.ops.mixed_attention import map_covariance, mixed_attention
from attnpool_backbones.ops.precision import full_precision, wide_dtype
from attnpool_backbones.ops.synchronised import joined_moments, synchronised_group


class Mixing(NamedTuple):
    """The learned part of re-attention and its numbers, see :func:`re_attention`."""

    theta: nn.Linear
    """H -> H."""
    norm: nn.Module | None
    """BatchNorm over images, queries and keys, LayerNorm over heads, or none."""
    scale: float
    t: float
    """Tokens N over those of pretraining, or 1."""
    live: bool = False
    """Whether a BatchNorm takes the statistics of the batch in eval mode, too."""
    joined: bool = True
    """Whether a SyncBatchNorm takes those of all processes, which then have to attend equally often
    (the fast form; the formula calls the norm, which always does)."""
    over_heads: bool | None = None
    """Whether the norm is over the heads of each entry, whatever wraps it. Default: if it is a
    LayerNorm."""


@operator
def re_attention(q: Tensor, k: Tensor, v: Tensor, mixing: Mixing) -> tuple[Tensor, 'LazyMaps']:
    """Returns norm(theta (t P) + bias) * (scale / t) v, P = softmax(q k^T / sqrt(d)).

    Arxiv 2103.11886, eq. 3; the paper has t = 1.

    Args:
        q: Queries B, H, N, d.
        k: Keys B, H, N, d.
        v: Values B, H, N, d.
        mixing: Theta, norm and scale.

    Returns:
        B, H, N, d, and access to the maps.
    """
    theta, norm, scale, t, live, _, over_heads = mixing
    if over_heads is None:
        over_heads = isinstance(norm, nn.LayerNorm)
    maps = attention_maps(q, k)  # B, H, N, N
    y = theta((maps * t).movedim(1, -1)).movedim(-1, 1)  # B, H, N, N
    if over_heads:
        y = norm(y.movedim(1, -1)).movedim(-1, 1)
    elif norm is not None and live and not norm.training:
        y = _with_batch_statistics(norm, y)
    elif norm is not None:
        y = norm(y)
    y = y * (scale / t)
    return y.to(v.dtype) @ v, LazyMaps(q, k, stored=y)


def _with_batch_statistics(norm: nn.BatchNorm2d, y: Tensor) -> Tensor:
    return nn.functional.batch_norm(
        y, None, None, norm.weight, norm.bias, training=True, eps=norm.eps
    )


# Recorded, too: theta gives entries near its bias, which a BatchNorm subtracts and divides by a
# deviation that may be 1e-3 of it. Rounding errors grow with it, unless the two biases meet first.
@re_attention.fast(recorded=True, traced=False)
def _(q: Tensor, k: Tensor, v: Tensor, mixing: Mixing) -> tuple[Tensor, 'LazyMaps']:
    # statistics of no image are no numbers and would become running ones
    if not may_fuse(mixing.theta, mixing.norm) or not _is_whole(mixing) or q.shape[0] == 0:
        return re_attention.formula(q, k, v, mixing)
    mix = _head_mix(q, k, mixing)
    return mix.attend(q, k, v), LazyMaps(q, k, mix)


class HeadMix(NamedTuple):
    """Theta, norm and scale in one: how the maps of all heads make those that multiply values.

    A BatchNorm's statistics follow from the H x H covariance of the softmax maps, so that norm and
    scale fold into a matrix and an offset in training, too.
    """

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
    mix: HeadMix | None = None
    """None: plain attention, or ``stored``."""
    stored: Tensor | None = None
    """Maps that multiply the values, where all of them were computed anyway."""

    def softmax(self, rows: slice = slice(None)) -> Tensor:
        """Returns the maps before mixing of some query rows, B, H, R, N, at least float32."""
        q = self.q[:, :, rows]
        with full_precision(q.device):
            scores = (q @ self.k.mT) * q.shape[-1] ** -0.5
        wide = wide_dtype(q.dtype)
        return scores.softmax(-1, dtype=wide)

    def mixed(self, rows: slice = slice(None)) -> Tensor:
        """Returns some rows of the maps that multiply the values, B, H, R, N, likewise."""
        if self.stored is not None:
            return self.stored[:, :, rows].to(wide_dtype(self.stored.dtype))
        maps = self.softmax(rows)
        return maps if self.mix is None else self.mix.maps(maps)


def _is_whole(mixing: Mixing) -> bool:
    """Tells whether theta and the norm have all parameters and statistics that they can have."""
    tensors = [*mixing.theta._parameters.values()]
    if mixing.norm is not None:
        tensors += [*mixing.norm._parameters.values(), *mixing.norm._buffers.values()]
    return all(t is not None for t in tensors)


def _head_mix(q: Tensor, k: Tensor, mixing: Mixing) -> HeadMix:
    """Folds norm and scale into the mixing of the maps of queries and keys B, H, N, d."""
    theta, norm, scale, t, live, joined, _ = mixing
    tokens = k.shape[2]
    wide = wide_dtype(theta.weight.dtype)
    with full_precision(q.device):
        weight, bias = theta.weight.to(wide), theta.bias.to(wide)
        if norm is None:
            return HeadMix(weight * scale, bias * (scale / t))
        gamma, beta = (p.to(wide) for p in (norm.weight, norm.bias))
        if isinstance(norm, nn.LayerNorm):
            return HeadMix(
                # Subtracting the mean over heads is linear; what is left divides by the RMS.
                (weight - weight.mean(0)) * t,
                bias - bias.mean(),
                norm.eps,
                gamma * (scale / t),
                beta * (scale / t),
            )
        if norm.training or live:
            covariance = map_covariance(q, k).to(wide) * t**2
            average, count = t / tokens, q.shape[0] * q.shape[2] * tokens
            group = synchronised_group(norm) if joined else None
            if group is not None:
                average, covariance, count = joined_moments(average, covariance, count, group)
            mean = weight.sum(1) * average + bias
            var = ((weight @ covariance) * weight).sum(1)
            if norm.training and norm.track_running_stats:
                _track(norm, mean, var, count)
        else:
            mean, var = norm.running_mean, norm.running_var
        gain = gamma * torch.rsqrt(var + norm.eps) * scale  # H
        return HeadMix(gain[:, None] * weight, (gain * (bias - mean) + beta * scale) / t)


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int | Tensor) -> None:
    """Updates running statistics as ``nn.BatchNorm2d`` does."""
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    weight = norm.momentum
    if weight is None:  # a plain average
        weight = 1 / norm.num_batches_tracked.to(mean.dtype)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), weight)
    unbiased = var * (count / max(count - 1, 1))
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), weight)
