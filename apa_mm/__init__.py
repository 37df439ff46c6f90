"""Adaptive Parametric Activation for MMDetection and MMPretrain.

Importing the package lets ``torch.load`` read the checkpoints that mmengine
writes (torch 2.6 and later refuse them otherwise); see
:mod:`apa_mm.weights.serialization` for what is allowed and what is not.
"""
from apa_mm.weights.serialization import allow_mmengine_checkpoints
from .version import __version__

__all__ = ['__version__']

allow_mmengine_checkpoints()
