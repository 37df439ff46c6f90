"""Samplers for long-tailed classification."""
from .class_balanced import ClassBalancedSampler

__all__ = ['ClassBalancedSampler']
