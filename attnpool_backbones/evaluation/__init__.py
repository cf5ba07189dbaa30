"""Metrics of what the image-level head predicts, for any config of mmdet and mmseg."""

from attnpool_backbones.evaluation.localisation_metric import LocalisationMetric
from attnpool_backbones.evaluation.tag_metric import ImageTagMetric

__all__ = ['ImageTagMetric', 'LocalisationMetric']
