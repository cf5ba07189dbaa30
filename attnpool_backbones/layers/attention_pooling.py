"""Attention-based aggregation of a map (PatchConvNet, arXiv 2112.13692)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from attnpool_backbones.layers.activations import GELU, Activated
from attnpool_backbones.ops.linear import linear
from attnpool_backbones.ops.token_attention import token_attention


class PooledTokens(NamedTuple):
    """What attention pooling returns."""

    tokens: Tensor
    """Pooled tokens, B, K, C."""
    maps: Tensor | None
    """Attention over the map's positions, B, K, H, W, or None if not asked for. With one class
    token the rest of each row's sum of 1 is the attention to the class token itself."""


class AttentionPooling(nn.Module):
    """One attention layer whose only queries are learned class tokens (arXiv 2112.13692).

    With one token (the paper's default) the token is a key and a value too; with one token per
    class only the map's positions are. Weights of one token load into a layer with several, which
    then all start as that one. Then follow an MLP and no norm: the residual
    stream of the tokens is returned as it is. One head; scale C^-0.5.

    Args:
        channels: Channels C of the map and of the tokens.
        num_tokens: Class tokens K: 1, or the number of classes.
        mlp_ratio: Width of the MLP over C.
        qkv_bias: Whether query, key and value projections have a bias.
        layer_scale_init: Initial value of both layer scales (arXiv 2103.17239).
        eps: Of the layer norms.
        init_std: Deviation of the initial weights. None draws them by Xavier's rule: with the
            published small ones attention is uniform for long, which only long training can wait
            for.
    """

    undecayed = ('cls_token',)

    def __init__(
        self,
        channels: int,
        num_tokens: int = 1,
        mlp_ratio: float = 3.0,
        qkv_bias: bool = True,
        layer_scale_init: float = 1e-4,
        eps: float = 1e-6,
        init_std: float | None = 0.02,
    ):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, num_tokens, channels))
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.q = nn.Linear(channels, channels, bias=qkv_bias)
        self.k = nn.Linear(channels, channels, bias=qkv_bias)
        self.v = nn.Linear(channels, channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.gamma_1 = nn.Parameter(torch.full((channels,), layer_scale_init))
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        hidden = int(channels * mlp_ratio)
        self.mlp = Activated(nn.Linear(channels, hidden), GELU(), nn.Linear(hidden, channels))
        self.gamma_2 = nn.Parameter(torch.full((channels,), layer_scale_init))
        self.init_std = init_std
        self.reset_parameters()

    @property
    def num_tokens(self) -> int:
        return self.cls_token.shape[1]

    def reset_parameters(self) -> None:
        """Draws weights by ``init_std`` and tokens from a normal of 0.02; zeroes the biases."""
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if self.init_std is None:
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.trunc_normal_(module.weight, std=self.init_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def training_bytes(self, batch: int, positions: int, num_tokens: int | None = None) -> int:
        """Tells how much memory a training step takes at most.

        Weights, the map and their gradients come on top. It is what the backward pass needs from
        the forward pass, and the two largest gradients that it holds at once, those around the
        MLP's activation. With fewer tokens than positions keys and values are not computed
        (:func:`token_attention`): the tokens' ``(9 + 4 r) C + N`` values each are what it takes,
        for an MLP of ratio r.

        Args:
            batch: Images B.
            positions: Of the map, N = H * W.
            num_tokens: Class tokens K. Default: those of the layer.

        Returns:
            Bytes in float32, with a linear classifier of the tokens and its norm.
        """
        tokens = self.num_tokens if num_tokens is None else num_tokens
        channels, hidden = self.cls_token.shape[2], self.mlp[0].out_features
        few = tokens < positions
        # As many values a channel as there are layers between token and classifier, attention, and
        # a few statistics of norms.
        a_token = (9 if few else 7) * channels + 2 * hidden + positions + 4
        a_position = 1 if few else 3 * channels + 2
        shared = tokens * ((4 if few else 2) * channels + 2)  # by all images
        kept = batch * (tokens * a_token + positions * a_position) + shared
        return 4 * (kept + 2 * batch * tokens * hidden)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        token = state_dict.get(f'{prefix}cls_token')
        if isinstance(token, Tensor):
            state_dict[f'{prefix}cls_token'] = self.adapt(token)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def adapt(self, token: Tensor) -> Tensor:
        """Repeats a checkpoint's only class token 1, 1, C for each of this layer's."""
        if token.dim() == 3 and token.shape[1] == 1:
            return token.repeat(1, self.num_tokens, 1)
        return token

    def forward(self, x: Tensor, return_maps: bool = False) -> PooledTokens:
        """Pools a map of any size.

        Args:
            x: Map B, C, H, W.
            return_maps: Whether to return the attention maps as well.

        Returns:
            The pooled tokens B, K, C and the maps B, K, H, W (or None).
        """
        height, width = x.shape[-2:]
        pooled, weights = token_attention(
            self.cls_token, x, self.norm1, self.q, self.k, self.v, among_tokens=self.num_tokens == 1
        )
        tokens = torch.addcmul(self.cls_token, self.gamma_1, linear(pooled, self.proj))  # B, K, C
        tokens = torch.addcmul(tokens, self.gamma_2, self.mlp(self.norm2(tokens)))
        if not return_maps:
            return PooledTokens(tokens, None)
        maps = weights[..., -height * width :].unflatten(-1, (height, width))
        return PooledTokens(tokens, maps)
