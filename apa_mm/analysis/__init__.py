"""Measures of what a network has learned, after the paper's analyses.

The measures here are plain functions and small accumulators; ``views`` runs
them over checkpoints, and ``tools/analyze.py`` is their command line.
"""
from .calibration import group_calibration
from .collapse import CollapseSums
from .errors import AnalysisError
from .logits import Reservoir, fit_logits, ks_distance
from .parameters import parameter_rows

__all__ = [
    'AnalysisError', 'CollapseSums', 'Reservoir', 'fit_logits',
    'group_calibration', 'ks_distance', 'parameter_rows'
]
