"""The backbones: one architecture, one file, on the dense contract of ``base.py``."""

from attnpool_backbones.backbones.attn_resnet import AttnResNet
from attnpool_backbones.backbones.base import DenseBackbone
from attnpool_backbones.backbones.coatnet import CoAtNet
from attnpool_backbones.backbones.deepvit import DeepViT
from attnpool_backbones.backbones.metaformer import MetaFormer
from attnpool_backbones.backbones.patchconvnet import PatchConvNet

__all__ = ['AttnResNet', 'CoAtNet', 'DeepViT', 'DenseBackbone', 'MetaFormer', 'PatchConvNet']
