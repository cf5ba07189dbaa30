from .digit_rendering import CLASSES, PALETTE

__all__ = ['CLASSES', 'PALETTE']
