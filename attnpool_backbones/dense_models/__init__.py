"""Whole models: detectors and segmentors with a head for the image as a whole."""

from attnpool_backbones.dense_models.image_tagger import ImageTagger
from attnpool_backbones.dense_models.with_image_head import build_with_image_head

__all__ = ['ImageTagger', 'build_with_image_head']
