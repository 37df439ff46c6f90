"""Stateless functions on tensors; they need nothing but torch."""
from .apa import aglu, apa, lower_bound
from .calibration import (calibration_bins, expected_calibration_error,
                          maximum_calibration_error)
from .gol import count_foreground, gol_loss, rare_ratio
from .gumbel import gumbel
from .long_tail import (calibrate_scores, effective_number_weights,
                        inverse_frequency_weights, log_prior, logit_offset)
from .shots import per_class_accuracy, shot_accuracy, shot_groups

__all__ = [
    'aglu', 'apa', 'calibrate_scores', 'calibration_bins', 'count_foreground',
    'effective_number_weights', 'expected_calibration_error', 'gol_loss',
    'gumbel', 'inverse_frequency_weights', 'log_prior', 'logit_offset',
    'lower_bound', 'maximum_calibration_error', 'per_class_accuracy',
    'rare_ratio', 'shot_accuracy', 'shot_groups'
]
