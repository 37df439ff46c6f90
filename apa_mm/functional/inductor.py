"""The eager formulas under ``torch.compile``, for GPUs without Triton kernels.

The tensor is seen as one or two axes of dynamic length, so that one compiled
function per dtype, kind and way of walking serves every shape. The first call
compiles (seconds to a minute; torch keeps the result in its own disk cache).
If that fails, the same functions run as they are, which is said once at level
INFO. torch's compiler writes Triton code for CUDA devices unless told
otherwise, so that without Triton the eager functions are what to expect.
"""
import functools
import logging
from typing import Any, Callable, Tuple

import torch
from torch import Tensor

from .formulas import activation, activation_gradients
from .layout import Layout

__all__ = ['backward', 'forward']


def _forward(x: Tensor, kappa: Tensor, lambd: Tensor, kind: int) -> Tensor:
    return activation(x.float(), kappa, lambd, kind).to(x.dtype)


def _backward(x: Tensor, grad: Tensor, kappa: Tensor, lambd: Tensor, kind: int,
              paper: bool, axes: Tuple[int, ...]) -> Tuple[Tensor, Tensor]:
    grads = activation_gradients(x.float(), grad.float(), kappa, lambd, kind,
                                 paper)
    sums = [
        torch.zeros_like(kappa).reshape(-1)
        if g is None else g.sum(axes).reshape(-1) for g in grads[1:]
    ]
    return grads[0].to(x.dtype), torch.stack(sums, 1)


class _Compiled:
    """A function that is compiled, or left alone once that has failed."""

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.compiled = torch.compile(function, dynamic=True)

    def __call__(self, *args: Any) -> Any:
        if self.compiled is not None:
            try:
                return self.compiled(*args)
            except Exception as error:  # backends raise errors of all kinds
                self.compiled = None
                logging.getLogger(__name__).info(
                    'torch.compile failed, activations run in their eager '
                    'form: %s', error)
        return self.function(*args)


@functools.lru_cache(maxsize=None)
def _compiled(function: Callable) -> _Compiled:
    return _Compiled(function)


def _view(x: Tensor, layout: Layout) -> Tensor:
    """Return the memory of x as (n,), (N, C, inner) or (rows, C)."""
    if layout.channels_last:
        shape = (layout.rows, layout.channels)
    elif layout.channels > 1:
        shape = (layout.rows // layout.channels, layout.channels, layout.inner)
    else:
        shape = (x.numel(), )
    return x.detach().as_strided((x.numel(), ), (1, )).view(shape)


def _align(parameter: Tensor, layout: Layout) -> Tensor:
    if layout.channels > 1 and not layout.channels_last:
        return parameter[:, None]
    return parameter


@torch.no_grad()
def forward(x: Tensor, kappa: Tensor, lambd: Tensor, layout: Layout,
            kind: int) -> Tensor:
    """Return the activation; see :func:`apa_mm.functional.native.forward`."""
    out = _compiled(_forward)(_view(x, layout), _align(kappa, layout),
                              _align(lambd, layout), kind)
    return out.as_strided(x.shape, x.stride())


@torch.no_grad()
def backward(x: Tensor, grad: Tensor, kappa: Tensor, lambd: Tensor,
             layout: Layout, kind: int,
             paper: bool) -> Tuple[Tensor, Tensor]:
    """Return the gradient of x and (channels, 2) of the parameters."""
    if grad.stride() != x.stride() or grad.dtype != x.dtype:
        grad = torch.empty_like(x).copy_(grad)
    view = _view(x, layout)
    axes = (0, 2) if view.dim() == 3 else (0, )
    out, sums = _compiled(_backward)(view, _view(grad, layout),
                                     _align(kappa, layout),
                                     _align(lambd, layout), kind, paper, axes)
    return out.as_strided(x.shape, x.stride()), sums
