"""Replacing the activations of any model by learnable units."""
from .replace import replace_activations

__all__ = ['replace_activations']
