"""Samplers for long-tailed classification."""
from .class_balanced import ClassBalancedSampler
from .repeat_aug import RepeatAugSampler

__all__ = ['ClassBalancedSampler', 'RepeatAugSampler']
