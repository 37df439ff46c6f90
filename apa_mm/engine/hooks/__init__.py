"""Hooks, one per file."""
from .attention_stats_hook import AttentionStatsHook
from .checkpoint_check_hook import CheckpointCheckHook
from .class_frequency_hook import ClassFrequencyHook
from .deferred_reweighting_hook import DeferredReweightingHook
from .non_finite_loss_hook import NonFiniteLossHook
from .parameter_trace_hook import ParameterTraceHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .weight_decay_check_hook import WeightDecayCheckHook

__all__ = [
    'AttentionStatsHook', 'CheckpointCheckHook', 'ClassFrequencyHook',
    'DeferredReweightingHook', 'NonFiniteLossHook', 'ParameterTraceHook',
    'SafeCheckpointHook', 'WeightDecayCheckHook']
