"""Replacing the activations of any model by learnable units."""
from .replace import SwapReport, replace_activations
from .site_units import find_shared_units, split_shared_units

__all__ = [
    'SwapReport', 'find_shared_units', 'replace_activations',
    'split_shared_units'
]
