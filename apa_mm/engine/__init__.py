"""Hooks, optimizer wrappers and launching."""
from . import hooks, optim  # noqa: F401 (registers)
from .optim import CPUAmpOptimWrapper

__all__ = ['CPUAmpOptimWrapper']
