"""Digits-LVIS and the pictures of the demo, for the tools beside it."""
from .digits_lvis import CLASSES, DigitsLVISSettings, draw_splits
from .folder import make_digits_lvis

__all__ = ['CLASSES', 'DigitsLVISSettings', 'draw_splits', 'make_digits_lvis']
