"""Data sets: the built-in scenes; unpacking, checking and limiting data on disk."""

from .class_folders import ClassFolders, PackImage, RandomResizedCrop, ShortSide
from .digit_rendering import CLASSES, PALETTE
from .limits import InputLimits
from .object_crops import ObjectCrops

__all__ = [
    'CLASSES',
    'PALETTE',
    'ClassFolders',
    'InputLimits',
    'ObjectCrops',
    'PackImage',
    'RandomResizedCrop',
    'ShortSide',
]
