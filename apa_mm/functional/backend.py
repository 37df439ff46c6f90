"""Which implementation of APA, AGLU and Gumbel computes a given tensor.

``APA_MM_BACKEND`` overrides the choice for the whole process, the argument
``backend`` for a call:

========  ==================================================================
auto      'native' on the CPU; 'triton' on CUDA devices, or 'compile' where
          Triton is missing; 'eager' on other devices, for float64 and where
          no C++ compiler is found (the default)
eager     torch operations; every device and dtype, and the only form that
          ``torch.compile``, ``torch.export``, ``torch.func`` and tensor
          subclasses see
native    the compiled CPU form (:mod:`apa_mm.functional.native`)
triton    the GPU kernels (:mod:`apa_mm.functional.apa_triton`); on the CPU
          only in Triton's interpreter, ``TRITON_INTERPRET=1``
compile   ``torch.compile`` of the eager form
          (:mod:`apa_mm.functional.inductor`)
========  ==================================================================

A form that does not apply to a tensor falls back to 'eager'.
"""
import os
from typing import Optional

import torch
from torch import Tensor

from apa_mm.utils.imports import HAS_TRITON

from . import native
from .layout import DTYPES

__all__ = ['BACKENDS', 'choose_backend', 'is_plain']

BACKENDS = ('auto', 'eager', 'native', 'triton', 'compile')
VARIABLE = 'APA_MM_BACKEND'


def choose_backend(x: Tensor, wanted: Optional[str] = None) -> str:
    """Return the name of the implementation to call for a tensor.

    Args:
        x (Tensor): Input of the activation.
        wanted (str, optional): One of :data:`BACKENDS`; None reads the
            environment variable ``APA_MM_BACKEND``, else 'auto'.

    Returns:
        str: 'eager', 'native', 'triton' or 'compile'. A tracer
        (``torch.compile``, ``torch.export``, ``torch.jit``) always gets
        'eager', since it makes a kernel of its own.

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
    if name == 'auto':
        name = _default(x.device.type)
    if name == 'eager' or x.dtype not in DTYPES or not is_plain(x):
        return 'eager'
    if name == 'compile':
        return name
    usable = _triton_runs if name == 'triton' else _native_runs
    return name if usable(x) else 'eager'


def is_plain(x: Tensor) -> bool:
    """Return whether the tensor's memory may be handed to a kernel.

    Not so for subclasses (FakeTensor, DTensor) and within ``torch.func``'s
    transforms, whose tensors are wrappers.
    """
    return (type(x) in (Tensor, torch.nn.Parameter)
            and not torch._C._are_functorch_transforms_active())


def _default(device: str) -> str:
    if device == 'cuda':
        return 'triton' if HAS_TRITON else 'compile'
    return 'native' if device == 'cpu' else 'eager'


def _native_runs(x: Tensor) -> bool:
    return x.device.type == 'cpu' and native.library() is not None


def _triton_runs(x: Tensor) -> bool:
    if not HAS_TRITON:
        return False
    if x.device.type != 'cpu':
        return x.device.type in ('cuda', 'xpu')
    from . import apa_triton
    return apa_triton.interpreted()
