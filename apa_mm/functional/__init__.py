"""Stateless functions on tensors; they need nothing but torch."""
from .apa import aglu, apa
from .calibration import (calibration_bins, expected_calibration_error,
                          maximum_calibration_error)
from .gumbel import (count_foreground, gol_loss, gumbel,
                     gumbel_bce_with_logits, rare_ratio)
from .long_tail import (effective_number_weights, inverse_frequency_weights,
                        log_prior, logit_offset)
from .lower_bound import lower_bound
from .shots import per_class_accuracy, shot_accuracy, shot_groups

__all__ = [
    'aglu',
    'apa',
    'calibration_bins',
    'count_foreground',
    'effective_number_weights',
    'expected_calibration_error',
    'gol_loss',
    'gumbel',
    'gumbel_bce_with_logits',
    'inverse_frequency_weights',
    'log_prior',
    'logit_offset',
    'lower_bound',
    'maximum_calibration_error',
    'per_class_accuracy',
    'rare_ratio',
    'shot_accuracy',
    'shot_groups',
]
