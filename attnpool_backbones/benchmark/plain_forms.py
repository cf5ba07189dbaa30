"""Turns a model into one that computes the same by the plain formulas."""

import copy

import torch
from torch import nn

from attnpool_backbones.backbones import coatnet, deepvit, metaformer, patchconvnet
from attnpool_backbones.backbones.metaformer_block import MetaFormerBlock
from attnpool_backbones.benchmark import plain_layers as plain
from attnpool_backbones.layers.activations import GELU, ReLU, SiLU
from attnpool_backbones.layers.attention_pooling import AttentionPooling
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

PLAIN_FORMS: dict[type[nn.Module], type[nn.Module]] = {
    GELU: nn.GELU,
    ReLU: nn.ReLU,
    SiLU: nn.SiLU,
    SqueezeExcite: plain.PlainSqueezeExcite,
    # DeepViT
    TokenStem: plain.PlainTokenStem,
    deepvit.DeepViTBlock: plain.PlainDeepViTBlock,
    ReAttention: plain.PlainReAttention,
    HeadMixing: plain.PlainHeadMixing,
    # CoAtNet
    coatnet.ConvStem: plain.PlainConvNormStem,
    coatnet.PatchStem: plain.PlainPatchStem,
    MBConv: plain.PlainMBConv,
    ConvNeXtBlock: plain.PlainConvNeXtBlock,
    TransformerBlock: plain.PlainTransformerBlock,
    GridAttention: plain.PlainGridAttention,
    # MetaFormer
    metaformer.MetaFormer: plain.PlainMetaFormer,
    PatchEmbedding: plain.PlainPatchEmbedding,
    MetaFormerBlock: plain.PlainMetaFormerBlock,
    Pooling: plain.PlainPooling,
    SelfAttention2d: plain.PlainSelfAttention2d,
    GlobalNorm: plain.PlainGlobalNorm,
    DepthwiseConv2d: plain.PlainDepthwiseConv2d,
    StarReLU: plain.PlainStarReLU,
    ChannelMlp: plain.PlainChannelMlp,
    Linear2d: plain.PlainLinear2d,
    # PatchConvNet
    patchconvnet.PatchConvNet: plain.PlainPatchConvNet,
    patchconvnet.PatchConvBlock: plain.PlainPatchConvBlock,
    AttentionPooling: plain.PlainAttentionPooling,
    # attention ResNets
    SGE: plain.PlainSGE,
}
"""What computes plainly what a type of layer computes; a subclass of it without own state."""


def plain_form(model: nn.Module) -> nn.Module:
    """Copies a model and makes the layers of the copy compute by the plain formulas.

    The copy has the same parameters, names and mode. Weights lie in torch's default layout, so the
    layout of the images decides that of the maps. Types that :data:`PLAIN_FORMS` does not name
    compute as before: they are plain already.

    Args:
        model: A backbone, or anything that contains one.

    Returns:
        The copy.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        form = PLAIN_FORMS.get(type(module))
        if form is not None:
            # The subclass only computes differently: names, hooks, mode and state stay as they are.
            module.__class__ = form
    return model.to(memory_format=torch.contiguous_format)
