"""Hooks, optimizer wrappers and launching."""
from . import hooks, optim  # noqa: F401 (registers)
from .optim import APAOptimWrapperConstructor, CPUAmpOptimWrapper

__all__ = ['APAOptimWrapperConstructor', 'CPUAmpOptimWrapper']
