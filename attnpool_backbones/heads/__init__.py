"""What turns a backbone's maps into an image-level answer."""

from attnpool_backbones.heads.attention_pooling_head import AttentionPoolingHead, ImageLogits
from attnpool_backbones.heads.attention_similarity_loss import AttentionSimilarityLoss
from attnpool_backbones.heads.average_pooling_head import AveragePoolingHead
from attnpool_backbones.heads.class_weighted_loss import ClassWeightedCrossEntropyLoss
from attnpool_backbones.heads.image_classifier import ImageClassifier

__all__ = [
    'AttentionPoolingHead',
    'AttentionSimilarityLoss',
    'AveragePoolingHead',
    'ClassWeightedCrossEntropyLoss',
    'ImageClassifier',
    'ImageLogits',
]
