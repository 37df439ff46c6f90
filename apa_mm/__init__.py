"""Adaptive Parametric Activation for MMDetection and MMPretrain.

Importing the package makes mmengine read checkpoints by
:func:`apa_mm.weights.read_checkpoint`, which runs nothing that a file names.
Neither torch nor mmengine is imported for that: if mmengine's loader is not
there yet, ours is installed once somebody imports it.
"""
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .version import __version__

__all__ = ['__version__']

_LOADER = 'mmengine.runner.checkpoint'


def _install() -> None:
    import_module('apa_mm.weights.mmengine_loader').install()


class _Watch:
    """Finder that lets one module be imported and then calls _install."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Return the spec of the other finders, if it is for our module."""
        if name != _LOADER:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                _install()

            spec.loader.exec_module = exec_module
        return spec


if _LOADER in sys.modules:
    _install()
else:
    sys.meta_path.insert(0, _Watch())
