"""Measures and pictures of what a network has learned.

One module per analysis of the paper, each with a function ``analyze`` that
``tools/analyze.py`` calls. What cannot be analysed raises
:class:`AnalysisError`.
"""
from .calibration import group_calibration
from .collapse import CollapseSums
from .errors import AnalysisError
from .logits import fit_logits
from .parameters import parameter_rows

__all__ = ['AnalysisError', 'CollapseSums', 'fit_logits', 'group_calibration',
           'parameter_rows']
