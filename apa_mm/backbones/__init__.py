"""Backbones that serve MMDetection and MMPretrain alike."""
from .resnet import APAResNet

__all__ = ['APAResNet']
