"""The frame of all MetaFormers: token mixer and MLP, each in a residual branch."""

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from attnpool_backbones.backbones.metaformer_archs import MetaFormerArch
from attnpool_backbones.layers.folding import fold_norm_before, fold_scale_after
from attnpool_backbones.layers.free_norms import FreeNorms
from attnpool_backbones.layers.global_norm import GlobalNorm
from attnpool_backbones.layers.mlp import ChannelMlp
from attnpool_backbones.layers.named_norms import NORMS
from attnpool_backbones.layers.token_mixers import (
    CHANNELWISE_MIXERS,
    build_token_mixer,
    last_layer,
)
from attnpool_backbones.ops.gradients import gradients_wanted
from attnpool_backbones.ops.residual import residual


class MetaFormerBlock(FreeNorms):
    """Token mixer and MLP, each after a norm and in a residual branch of its own.

    Args:
        arch: The numbers of the variant.
        stage: Stage (0-based) the block is part of.
        grid: Height and width of the stage's map in pretraining.
        drop_path: Probability of dropping a branch of a sample.
        window: Side of the windows of an attention mixer. Default: the whole map.
    """

    def __init__(
        self,
        arch: MetaFormerArch,
        stage: int,
        grid: tuple[int, int],
        drop_path: float,
        window: int | None = None,
    ):
        super().__init__()
        width = arch.widths[stage]
        self.residual = arch.residual
        self.norm1 = NORMS[arch.norm](width, eps=arch.norm_eps, bias=arch.norm_bias)
        self.mixer = build_token_mixer(
            arch.mixers[stage],
            width,
            grid=grid,
            pool_size=arch.pool_size,
            proj_bias=arch.bias,
            window=window,
        )
        self.drop_path = DropPath(drop_path)
        self.layer_scale1 = _scale(arch.layer_scale_init, width)
        res_scale_init = 1.0 if stage in arch.res_scale_stages else None
        self.res_scale1 = _scale(res_scale_init, width)
        self.mlp = None
        if arch.mlp:
            self.norm2 = NORMS[arch.norm](width, eps=arch.norm_eps, bias=arch.norm_bias)
            self.mlp = ChannelMlp(width, int(width * arch.mlp_ratios()[stage]), arch.act, arch.bias)
            self.layer_scale2 = _scale(arch.layer_scale_init, width)
            self.res_scale2 = _scale(res_scale_init, width)
        for module in (*self.mixer.modules(), *(self.mlp.modules() if arch.mlp else ())):
            if isinstance(module, nn.Linear) or (arch.patch_norm and isinstance(module, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.norm1, GlobalNorm) and isinstance(self.mixer, CHANNELWISE_MIXERS):
            # The scale passes through the mixer; in the norm it costs nothing.
            y = self.mixer(self.norm1(x, self.layer_scale1))  # B, C, H, W throughout
            x = self._join(x, y, None, self.res_scale1)
        else:
            y = self.mixer(self.norm1(x))
            x = self._join(x, y, self.layer_scale1, self.res_scale1)
        if self.mlp is not None:
            # In training a factor of the weights costs less than one of the map and its gradient.
            of_weights = gradients_wanted(x, *self.mlp.parameters(), self.layer_scale2)
            scales = (self.layer_scale2, None) if of_weights else (None, self.layer_scale2)
            y = self.mlp(self.norm2(x), scales[0])
            x = self._join(x, y, scales[1], self.res_scale2)
        return x

    def _join(
        self, x: Tensor, y: Tensor, layer_scale: Tensor | None, res_scale: Tensor | None
    ) -> Tensor:
        shortcut = x if self.residual else None
        return residual(shortcut, y, self.drop_path, layer_scale, res_scale)

    def free_norms(self) -> tuple[str, ...]:
        """Returns the names of both norms."""
        return 'norm1', 'norm2'

    @torch.no_grad()
    def fold(self) -> None:
        """Folds layer scales and the affine part of the MLP's norm, for inference."""
        if self.mlp is not None:
            if self.layer_scale2 is not None:
                self.layer_scale2 = fold_scale_after(self.mlp.fc2, self.layer_scale2)
            self.norm2 = fold_norm_before(self.norm2, self.mlp.fc1)
        if self.layer_scale1 is not None:
            scaled = last_layer(self.mixer) or self.norm1
            if getattr(scaled, 'weight', None) is not None:
                self.layer_scale1 = fold_scale_after(scaled, self.layer_scale1)


def _scale(init: float | None, width: int) -> nn.Parameter | None:
    return None if init is None else nn.Parameter(torch.full((width,), init))
