"""What turns a backbone's maps into an image-level answer."""

from attnpool_backbones.heads.attention_pooling_head import AttentionPoolingHead, ImageLogits
from attnpool_backbones.heads.attention_similarity_loss import AttentionSimilarityLoss
from attnpool_backbones.heads.average_pooling_head import AveragePoolingHead
from attnpool_backbones.heads.class_weighted_loss import ClassWeightedCrossEntropyLoss
from attnpool_backbones.heads.image_classifier import ImageClassifier
from attnpool_backbones.heads.image_tag_head import ImageTagHead
from attnpool_backbones.heads.with_attention_pools import build_with_attention_pools
from attnpool_backbones.layers.attention_pool import AttentionPool2d

__all__ = [
    'AttentionPool2d',
    'AttentionPoolingHead',
    'AttentionSimilarityLoss',
    'AveragePoolingHead',
    'ClassWeightedCrossEntropyLoss',
    'ImageClassifier',
    'ImageLogits',
    'ImageTagHead',
    'build_with_attention_pools',
]
