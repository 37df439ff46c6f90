"""Registered modules that any OpenMMLab model can be built from."""
from .activation import (AGLU, APA, Gumbel, TemperedGumbel, TemperedSigmoid,
                         build_site_activation)
from .attention import CBAM, ChannelAttention, SpatialAttention
from .fused import (can_fuse, fused_block_end, fused_norm_act,
                    may_overwrite)
from .predictor import CosineClassifier, CosineConv2d, CosineLinear
from .score_calibration import ScoreCalibration
from .wrapped_cauchy import WrappedCauchyLinear

__all__ = [
    'AGLU', 'APA', 'CBAM', 'ChannelAttention', 'CosineClassifier',
    'CosineConv2d', 'CosineLinear', 'Gumbel', 'ScoreCalibration',
    'SpatialAttention', 'TemperedGumbel', 'TemperedSigmoid',
    'WrappedCauchyLinear', 'build_site_activation', 'can_fuse',
    'fused_block_end', 'fused_norm_act', 'may_overwrite'
]
