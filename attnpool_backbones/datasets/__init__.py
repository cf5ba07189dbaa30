from .digit_rendering import CLASSES, PALETTE
from .limits import InputLimits

__all__ = ['CLASSES', 'PALETTE', 'InputLimits']
