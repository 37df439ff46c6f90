"""Optimizer wrappers and their constructor, one per file."""
from .constructor import APAOptimWrapperConstructor
from .cpu_amp import CPUAmpOptimWrapper

__all__ = ['APAOptimWrapperConstructor', 'CPUAmpOptimWrapper']
