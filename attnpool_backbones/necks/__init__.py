"""What turns the maps of a single-scale trunk into a pyramid."""

from attnpool_backbones.necks.scale_pyramid import ScalePyramid

__all__ = ['ScalePyramid']
