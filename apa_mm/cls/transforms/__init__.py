"""Augmentations that MMPretrain does not have."""
from .auto_augment import CIFARAutoAugment

__all__ = ['CIFARAutoAugment']
