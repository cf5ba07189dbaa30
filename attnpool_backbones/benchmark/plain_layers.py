"""The layers by their plain formulas: maps stored, one operation a step, nothing folded or fused.

Each class here computes what its base class computes, with the same parameters and state dict, as a
paper writes it down and as the official code or its customary port runs it. They are what the
layers of this package are measured against and tested with.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.backbones import coatnet, deepvit, metaformer, patchconvnet
from attnpool_backbones.backbones.metaformer_block import MetaFormerBlock
from attnpool_backbones.layers.attention_pooling import AttentionPooling, PooledTokens
from attnpool_backbones.layers.channel_mlp import ChannelMlp
from attnpool_backbones.layers.convnext_block import ConvNeXtBlock
from attnpool_backbones.layers.depthwise_conv import DepthwiseConv2d
from attnpool_backbones.layers.global_norm import GlobalNorm
from attnpool_backbones.layers.grid_attention import GridAttention
from attnpool_backbones.layers.linear2d import Linear2d
from attnpool_backbones.layers.mbconv import MBConv
from attnpool_backbones.layers.patch_embedding import PatchEmbedding
from attnpool_backbones.layers.re_attention import HeadMixing, ReAttention
from attnpool_backbones.layers.sge import SGE
from attnpool_backbones.layers.squeeze_excite import SqueezeExcite
from attnpool_backbones.layers.star_relu import StarReLU
from attnpool_backbones.layers.token_mixers import Pooling, SelfAttention2d
from attnpool_backbones.layers.token_stem import TokenStem
from attnpool_backbones.layers.transformer_block import TransformerBlock


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    """Multiplies a map B, C, H, W by a factor per channel, if there is one."""
    return x if scale is None else x * scale.view(-1, 1, 1)


# ------------------------------------------------------------------ attention


def attention_maps(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns softmax(q k^T / sqrt(d) + bias), B, H, T, N.

    Args:
        q: Queries B, H, T, d.
        k: Keys B, H, N, d.
        bias: H, T, N. Default: none.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    return (scores if bias is None else scores + bias).softmax(-1)


def gathered_bias(table: Tensor, height: int, width: int) -> Tensor:
    """Returns the bias of every query and key of a grid, h, H*W, H*W.

    Args:
        table: Bias of each offset, h, 2H-1, 2W-1.
        height: H of the grid.
        width: W of the grid.
    """
    rows = torch.arange(height, device=table.device).repeat_interleave(width)  # H*W
    columns = torch.arange(width, device=table.device).repeat(height)
    index = (rows[:, None] - rows + height - 1) * (2 * width - 1)
    index = index + columns[:, None] - columns + width - 1  # H*W, H*W
    entries = table.flatten(1).t()[index.flatten()]  # (H*W)^2, h
    return entries.unflatten(0, index.shape).permute(2, 0, 1).contiguous()


class PlainHeadMixing(HeadMixing):
    """1x1 convolution over the heads of stored maps, the norm, the scale."""

    def mix(self, maps: Tensor) -> Tensor:
        """Mixes maps B, H, N, N."""
        tokens = maps.shape[-1]
        t = tokens / self.pretrain_tokens if self.stats_tokens == 'rescale' else 1.0
        # The correction for other sizes than the pretraining's costs the formula nothing here.
        y = F.conv2d(maps, (self.theta.weight * t)[:, :, None, None], self.theta.bias)
        if isinstance(self.norm, nn.LayerNorm):
            y = self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        elif self.norm is not None and self.stats_tokens == 'live' and not self.training:
            y = F.batch_norm(
                y, None, None, self.norm.weight, self.norm.bias, training=True, eps=self.norm.eps
            )
        elif self.norm is not None:
            y = self.norm(y)
        return y * (self.scale / t)


class PlainReAttention(ReAttention):
    """Self-attention with stored maps, mixed or not."""

    def forward(self, x: Tensor, with_maps: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Returns tokens B, N, C; with ``with_maps`` the maps B, H, N, N as well."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # B, N, 3, H, d
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # B, H, N, d each
        maps = attention_maps(q, k)
        if self.mixing is not None:
            maps = self.mixing.mix(maps)
        out = self.proj((maps @ v).transpose(1, 2).flatten(2))  # B, N, C
        return (out, maps) if with_maps else out


class PlainDeepViTBlock(deepvit.DeepViTBlock):
    """``x + f(LN(r x)) / r`` with r where the formula has it."""

    def forward(self, x: Tensor, with_maps: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Returns tokens B, N, C of tokens B, N, C, and the maps B, H, N, N if asked for."""
        y, maps = self.attn(self._normed(self.norm1, x), with_maps=True)
        x = x + self.drop_path(y * self.gain)
        x = x + self.drop_path(self.mlp(self._normed(self.norm2, x))) * self.gain
        return (x, maps) if with_maps else x

    def _normed(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        r = 1 / self.gain
        return F.layer_norm(x * r, x.shape[-1:], norm.weight, norm.bias, norm.eps * r**2)


class PlainTokenStem(TokenStem):
    """Convolution, BatchNorm, ReLU, each by itself."""

    def embed(self, x: Tensor) -> Tensor:
        """Embeds the patches of images B, 3, H, W; returns a map B, C, H / stride, W / stride."""
        x = F.pad(x, (0, -x.shape[-1] % self.stride, 0, -x.shape[-2] % self.stride))
        if self.cnn:
            x = F.relu(self.bn1(self.conv1(x)))  # B, 64, H/2, W/2
            x = F.relu(self.bn2(self.conv2(x)))
        return self.proj(x)


class PlainGridAttention(GridAttention):
    """Attention with stored maps and a bias for every query and key."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Computes ``scale * attention(x)`` of a map B, C, H, W."""
        return _scaled(super().forward(x), scale)

    def _attend(self, qkv: Tensor, table: Tensor | None = None) -> Tensor:
        size = qkv.shape[1:3]
        if self.bias is not None and table is None:
            table = self.bias(*size)
        q, k, v = qkv.flatten(1, 2).transpose(1, 2).unbind(3)  # B, h, H*W, d
        maps = attention_maps(q, k, None if table is None else gathered_bias(table, *size))
        return (maps @ v).transpose(1, 2).flatten(2).unflatten(1, size)


class PlainSelfAttention2d(SelfAttention2d):
    """Attention with stored maps."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to the same shape."""
        size = x.shape[-2:]
        qkv = self.qkv(x.permute(0, 2, 3, 1).flatten(1, 2))  # B, H*W, 3 * inner
        qkv = qkv.unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # B, heads, H*W, head_dim each
        y = (attention_maps(q, k) @ v).transpose(1, 2).flatten(2)
        y = F.linear(y, self.proj.weight, self.proj.bias)
        return y.unflatten(1, size).permute(0, 3, 1, 2)


class PlainAttentionPooling(AttentionPooling):
    """Class attention with stored maps."""

    def forward(self, x: Tensor, return_maps: bool = False) -> PooledTokens:
        """Pools a map B, C, H, W; the maps are computed in any case."""
        tokens, maps = super().forward(x, return_maps=True)
        return PooledTokens(tokens, maps if return_maps else None)


# ------------------------------------------------------------------ convolutions and perceptrons


class PlainLinear2d(Linear2d):
    """A 1x1 convolution."""

    def forward(
        self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Maps B, C, H, W to B, C', H, W; see :class:`Linear2d`."""
        if weight is None:
            weight, bias = self.weight, self.bias
        return F.conv2d(x, weight[:, :, None, None], bias)


class PlainSqueezeExcite(SqueezeExcite):
    """The scaled map beside the map."""

    def forward(self, x: Tensor, inplace: bool = False) -> Tensor:
        """Scales a map B, C, H, W; ``inplace`` changes nothing."""
        return super().forward(x)


class PlainStarReLU(StarReLU):
    """``scale * max(x, 0)^2 + bias``, one operation after the other."""

    def forward(self, x: Tensor) -> Tensor:
        """Computes the activation."""
        return self.scale * F.relu(x) ** 2 + self.bias


class PlainChannelMlp(ChannelMlp):
    """Layer, activation, layer, scale, each by itself."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Computes ``scale * mlp(x)`` of a map B, C, H, W."""
        return _scaled(self.fc2(self.act(self.fc1(x))), scale)


class PlainDepthwiseConv2d(DepthwiseConv2d):
    """torch's convolution with torch's gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to the same shape."""
        return nn.Conv2d.forward(self, x)


class PlainConvNormStem(coatnet.ConvStem):
    """Convolution, norm, activation, convolution, in the layout of the image."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, 3, H, W to B, C, H/2, W/2."""
        return self.conv2(self.act(self.norm(self.conv1(x))))


class PlainPatchStem(coatnet.PatchStem):
    """Patch embedding in the layout of the image."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, 3, H, W to B, C, H/p, W/p."""
        side = self.conv.stride[0]
        return self.conv(F.pad(x, (0, -x.shape[-1] % side, 0, -x.shape[-2] % side)))


class PlainMBConv(MBConv):
    """Every norm a pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to B, C', ceil(H / stride), ceil(W / stride)."""
        y = self.expand(self.pool(self.act_before(self.norm(x))))
        y = self.dwconv(self.act(self.expand_norm(y)))
        if self.se_early:
            y = self.act(self.dwconv_norm(self.se(y)))
        else:
            y = self.se(self.act(self.dwconv_norm(y)))
        return self.shortcut(self.shortcut_pool(x)) + self.drop_path(self.project(y))


class PlainTransformerBlock(TransformerBlock):
    """Layer scales as passes over the maps."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to B, C', H, W, or half the sides if there is pooling."""
        y = _scaled(self.attn(self.pool(self.norm1(x))), self.gamma1)
        x = self.shortcut(self.pool(x)) + self.drop_path(y)
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.gamma2))


class PlainConvNeXtBlock(ConvNeXtBlock):
    """Layer scale as a pass over the map."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to B, C', ceil(H / stride), ceil(W / stride)."""
        y = _scaled(self.mlp(self.norm(self.dwconv(x))), self.gamma)
        return self.shortcut(self.pool(x)) + self.drop_path(y)


# ------------------------------------------------------------------ MetaFormer


class PlainPooling(Pooling):
    """Average pooling, then a subtraction."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to the same shape."""
        pooled = F.avg_pool2d(x, self.size, 1, self.size // 2, count_include_pad=False)
        return pooled - x


class PlainGlobalNorm(GlobalNorm):
    """Group normalisation with one group."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Computes ``scale * norm(x)`` of a map B, C, H, W."""
        return _scaled(F.group_norm(x, 1, self.weight, self.bias, self.eps), scale)


class PlainPatchEmbedding(PatchEmbedding):
    """The convolution in the layout of its input, whatever the size."""

    def _convolve(self, x: Tensor) -> Tensor:
        return self.proj(x)


class PlainMetaFormerBlock(MetaFormerBlock):
    """Layer scale and residual scale as passes over the maps."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to the same shape."""
        y = _scaled(self.mixer(self.norm1(x)), self.layer_scale1)
        x = self._joined(x, y, self.res_scale1)
        if self.mlp is None:
            return x
        y = _scaled(self.mlp(self.norm2(x)), self.layer_scale2)
        return self._joined(x, y, self.res_scale2)

    def _joined(self, x: Tensor, y: Tensor, res_scale: Tensor | None) -> Tensor:
        y = self.drop_path(y)
        return _scaled(x, res_scale) + y if self.residual else y


class PlainMetaFormer(metaformer.MetaFormer):
    """The trunk in the layout of the image."""

    memory_format = None


# ------------------------------------------------------------------ PatchConvNet, SGE


class PlainPatchConvBlock(patchconvnet.PatchConvBlock):
    """The branch on the map of normalised tokens, layer scale as a pass over them."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to the same shape."""
        y = self.dwconv(F.gelu(self.conv1(self.norm(x))))
        y = self.conv2(self.se(F.gelu(y)))
        return x + self.drop_path(_scaled(y, self.gamma))


class PlainPatchConvNet(patchconvnet.PatchConvNet):
    """The trunk in the layout of the image."""

    memory_format = None


class PlainSGE(SGE):
    """Every step of the formula a pass over the map."""

    def forward(
        self, x: Tensor, residual: Tensor | None = None, norm: nn.Module | None = None
    ) -> Tensor:
        """Computes ``x * gate``, or ``relu(x * gate + residual)``; see :class:`SGE`."""
        x = x if norm is None else norm(x)
        groups = x.reshape(-1, x.shape[1] // self.groups, *x.shape[2:])  # B*G, C/G, H, W
        a = (groups * F.adaptive_avg_pool2d(groups, 1)).sum(1)  # B*G, H, W
        t = a.flatten(1)
        t = t - t.mean(1, keepdim=True)
        if t.shape[1] > 1:  # a single position has no deviation
            t = t / (t.std(1, keepdim=True) + self.eps)
        t = t.view(len(x), self.groups, *x.shape[2:]) * self.weight + self.bias
        y = (groups * t.view_as(a)[:, None].sigmoid()).view(x.shape)
        if residual is None:
            return y
        y += residual
        return y.relu_()
