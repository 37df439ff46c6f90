"""Which implementation of APA and AGLU computes a given tensor.

``APA_MM_BACKEND`` overrides the choice for the whole process:

========  ==================================================================
auto      'native' on the CPU; 'eager' on other devices, for float64 and
          where no compiler is found (the default)
eager     torch operations; every device and dtype, and the only form that
          ``torch.compile`` and ``torch.export`` see
native    the compiled CPU form (:mod:`apa_mm.functional.native`)
========  ==================================================================
"""
import os
from typing import Optional

import torch
from torch import Tensor

from . import native

__all__ = ['BACKENDS', 'choose_backend']

BACKENDS = ('auto', 'eager', 'native')
VARIABLE = 'APA_MM_BACKEND'


def choose_backend(x: Tensor, wanted: Optional[str] = None) -> str:
    """Return 'eager' or 'native' for a tensor.

    Args:
        x (Tensor): Input of the activation.
        wanted (str, optional): One of :data:`BACKENDS`; None reads the
            environment variable ``APA_MM_BACKEND``, else 'auto'.

    Returns:
        str: The implementation to call. A tracer (``torch.compile``,
        ``torch.export``, ``torch.jit``) always gets 'eager', since it makes
        a kernel of its own.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> import torch
        >>> choose_backend(torch.ones(1), 'eager')
        'eager'
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return 'eager'
    name = wanted or os.environ.get(VARIABLE, 'auto')
    if name not in BACKENDS:
        source = 'backend' if wanted else f'environment variable {VARIABLE}'
        raise ValueError(
            f'{source} must be one of {BACKENDS}, but got {name!r}')
    usable = x.device.type == 'cpu' and x.dtype in native.DTYPES
    if name == 'eager' or not usable or native.library() is None:
        return 'eager'
    return 'native'
