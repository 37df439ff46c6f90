"""Measures and pictures of what a network has learned.

One module per analysis of the paper, each with a function ``analyze`` that
``tools/analyze.py`` calls; nothing else in the package imports this. What
cannot be analysed, such as a model without gates or NaN in the scores, raises
:class:`AnalysisError`, which says how to mend it.
"""
from .calibration import group_calibration
from .collapse import CollapseSums
from .errors import AnalysisError
from .logits import fit_logits
from .parameters import parameter_rows

__all__ = [
    'AnalysisError', 'CollapseSums', 'fit_logits', 'group_calibration',
    'parameter_rows'
]
