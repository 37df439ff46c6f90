"""Losses on the contracts of MMDetection and MMPretrain."""
from .deferred_reweighted_loss import DeferredReweightedLoss
from .gol_loss import GOLLoss
from .logit_adjusted_loss import BalancedSoftmaxLoss, LogitAdjustedLoss

__all__ = [
    'BalancedSoftmaxLoss', 'DeferredReweightedLoss', 'GOLLoss',
    'LogitAdjustedLoss'
]
