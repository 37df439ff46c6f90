"""Losses on the contracts of MMDetection and MMPretrain."""
from .class_count_losses import (
    BalancedSoftmaxLoss, DeferredReweightedLoss, LogitAdjustedLoss)
from .gol_loss import GOLLoss
from .sampled_sigmoid_loss import SampledSigmoidLoss

__all__ = [
    'BalancedSoftmaxLoss', 'DeferredReweightedLoss', 'GOLLoss',
    'LogitAdjustedLoss', 'SampledSigmoidLoss'
]
