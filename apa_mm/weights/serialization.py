"""Let ``torch.load`` read mmengine's own checkpoints, and nothing more.

Since torch 2.6 ``torch.load`` refuses every global that is not allow-listed.
An epoch or iteration checkpoint of mmengine 0.10 needs these, found by listing
the globals of real files (AdamW, warm-up, multi-step, cosine, one-cycle,
polynomial and plateau schedules, EMA, best-score keeping):

- ``mmengine.logging.history_buffer.HistoryBuffer``: the logged scalars;
- ``numpy.ndarray``, ``numpy.dtype`` and numpy's two rebuilding functions: the
  arrays in a HistoryBuffer and a best score that is a numpy scalar. numpy 2
  writes the functions' module as ``numpy._core.multiarray``, numpy 1 wrote
  ``numpy.core.multiarray``; both names are taken;
- ``builtins.getattr``: a HistoryBuffer pickles the methods that compute its
  statistics, and pickle's protocol 2 writes a method as
  ``getattr(class, 'name')``. The real ``getattr`` would open every attribute
  of every allowed object, so the name is answered by a function of ours
  that knows six pairs of class and method and refuses all others;
- ``OneCycleParamScheduler``: its state holds its annealing method, written
  the same way.

torch before 2.6 does not restrict ``torch.load`` unless it is asked to, and
before 2.4 it has no allow-list: there is nothing to do or to lean on there,
which leaves such a torch as open to a hostile file as it always was.
"""
import pickle
from functools import wraps
from typing import Any, Callable, List

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

__all__ = ['allow_mmengine_checkpoints']

#: The only attributes that a checkpoint may name, by owner.
_METHODS = {
    HistoryBuffer: ('min', 'max', 'mean', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}
#: What logged values, counts, scores and palettes are made of. Not
#: ``object``: such an array can carry anything.
_DTYPES = ('bool', 'uint8', 'int32', 'int64', 'float32', 'float64')
_NUMPY_MODULES = ('numpy.core.multiarray', 'numpy._core.multiarray')


def _known_method(owner: Any, name: str) -> Callable:
    """Return a method that mmengine's checkpoints hold, refuse all others.

    Args:
        owner (Any): The class that owns the method.
        name (str): The method's name.

    Returns:
        Callable: ``owner.name``.

    Raises:
        pickle.UnpicklingError: If the pair is not one of ``_METHODS``.
    """
    for known, names in _METHODS.items():
        if owner is known and name in names:
            return getattr(owner, name)
    raise pickle.UnpicklingError(
        f'the checkpoint asks for attribute {name!r} of {owner!r}, but only '
        'the statistics methods of HistoryBuffer and the annealing methods '
        'of OneCycleParamScheduler are allowed; do not load this file '
        'unless you know who made it.')


def _named(function: Callable, module: str, name: str) -> Callable:
    """Wrap ``function`` so that it is found as ``module.name`` in a pickle."""

    @wraps(function, assigned=())
    def wrapper(*args: Any) -> Any:
        return function(*args)

    wrapper.__module__, wrapper.__qualname__ = module, name
    return wrapper


def _safe_globals() -> List[Callable]:
    """Return what mmengine's checkpoints refer to, under their file names."""
    rebuild_array = np.empty(0).__reduce__()[0]
    rebuild_scalar = np.float64(0).__reduce__()[0]
    allowed = [HistoryBuffer, OneCycleParamScheduler, np.ndarray, np.dtype]
    allowed += [type(np.dtype(name)) for name in _DTYPES]
    for module in _NUMPY_MODULES:
        allowed.append(_named(rebuild_array, module, '_reconstruct'))
        allowed.append(_named(rebuild_scalar, module, 'scalar'))
    # Protocol 2 says __builtin__; recent torch translates that itself.
    for module in ('builtins', '__builtin__'):
        allowed.append(_named(_known_method, module, 'getattr'))
    return allowed


def allow_mmengine_checkpoints() -> bool:
    """Allow-list the globals of mmengine's checkpoints for ``torch.load``.

    Importing :mod:`apa_mm` calls this once; calling it again is harmless.

    Returns:
        bool: False if this torch has no allow-list (before 2.4).

    Example:
        >>> from apa_mm.weights.serialization import allow_mmengine_checkpoints
        >>> allow_mmengine_checkpoints()
        True
    """
    if not hasattr(torch.serialization, 'add_safe_globals'):
        return False
    listed = {(item.__module__, item.__qualname__)
              for item in torch.serialization.get_safe_globals()
              if not isinstance(item, tuple)}
    torch.serialization.add_safe_globals([
        item for item in _safe_globals()
        if (item.__module__, item.__qualname__) not in listed
    ])
    return True
