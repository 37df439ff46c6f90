"""Backbones that serve MMDetection and MMPretrain alike."""
from .resnet import APAResNet
from .resnet_cifar import APAResNetCIFAR
from .resnet_variants import APAResNetD, APAResNetLegacy

__all__ = ['APAResNet', 'APAResNetCIFAR', 'APAResNetD', 'APAResNetLegacy']
