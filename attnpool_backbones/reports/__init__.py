"""What a trained model gets wrong, as a page: ``--report FOLDER`` of a test."""

from attnpool_backbones.reports.hook import ReportHook
from attnpool_backbones.reports.image_confusion import ImageConfusion
from attnpool_backbones.reports.pixel_confusion import PixelConfusion

__all__ = ['ImageConfusion', 'PixelConfusion', 'ReportHook']
