"""Data sets: the built-in scenes; unpacking, checking and limiting data on disk."""

from .digit_rendering import CLASSES, PALETTE
from .limits import InputLimits

__all__ = ['CLASSES', 'PALETTE', 'InputLimits']
