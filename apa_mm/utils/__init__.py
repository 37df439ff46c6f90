"""Helpers shared by every part of the package."""
from .imports import HAS_HOTCOCO, HAS_MMDET, HAS_MMPRETRAIN

__all__ = ['HAS_HOTCOCO', 'HAS_MMDET', 'HAS_MMPRETRAIN']
