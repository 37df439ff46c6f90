"""Hooks, one per file."""
from .checkpoint_check_hook import CheckpointCheckHook
from .class_frequency_hook import ClassFrequencyHook
from .deferred_reweighting_hook import DeferredReweightingHook
from .replace_activations_hook import ReplaceActivationsHook

__all__ = [
    'CheckpointCheckHook', 'ClassFrequencyHook', 'DeferredReweightingHook',
    'ReplaceActivationsHook'
]
