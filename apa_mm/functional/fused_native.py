"""Calls of the compiled ``csrc/batch_norm_cpu.cpp`` and ``residual_cpu.cpp``.

The names follow :mod:`apa_mm.functional.fused`, which is where the maths and
the arguments are described.
"""
from ctypes import c_double, c_int64
from typing import TYPE_CHECKING, Optional, Tuple

import torch
from torch import Tensor

from . import native
from .backend import choose_backend
from .formulas import UNIT

if TYPE_CHECKING:
    from .fused import Affine

__all__ = [
    'batch_norm_backward', 'batch_norm_forward', 'batch_statistics',
    'block_end_backward', 'block_end_forward', 'usable'
]


def usable(x: Tensor,
           kappa: Tensor,
           lambd: Tensor,
           other: Optional[Tensor] = None) -> bool:
    """Return whether these tensors can be walked: float32, NCHW, CPU."""
    tensors = [x] if other is None else [x, other]
    return (choose_backend(x) == 'native' and x.dim() == 4 and x.numel() > 0
            and kappa.numel() == lambd.numel()
            and all(t.dtype == torch.float32 and t.is_contiguous()
                    for t in tensors))


def batch_statistics(x: Tensor, running_mean: Tensor, running_var: Tensor,
                     eps: float, factor: float) -> Tuple[Tensor, Tensor]:
    """Return mean and 1 / std per channel of NCHW; move the running ones.

    Args:
        x (Tensor): (N, C, H, W) with more than one value per channel.
        running_mean (Tensor): (C,), moved by ``factor`` in place.
        running_var (Tensor): (C,), the same with the unbiased variance.
        eps (float): Added to the biased variance.
        factor (float): Share of the new values.

    Returns:
        tuple[Tensor, Tensor]: (C,) each, float32.
    """
    n, c, h, w = x.shape
    mean, invstd = x.new_empty(c), x.new_empty(c)
    native.library().batch_statistics(
        *map(native.pointer, (x, mean, invstd, running_mean, running_var)),
        c_double(eps), c_double(factor), c_int64(n), c_int64(h * w),
        c_int64(c), native.threads(x))
    return mean, invstd


def batch_norm_forward(affine: 'Affine', kappa: Tensor,
                       lambd: Tensor) -> Tensor:
    """Return ``aglu(scale * x + shift)``."""
    return native.forward(affine.source, flat(kappa), flat(lambd),
                          _layout(affine.source), UNIT,
                          (flat(affine.scale), flat(affine.shift)))


def batch_norm_backward(affine: 'Affine', grad: Tensor, weight: Tensor,
                        mean: Tensor, invstd: Tensor, kappa: Tensor,
                        lambd: Tensor, batch_stats: bool,
                        paper: bool) -> tuple:
    """Return the gradients for x, weight, bias, kappa and lambda."""
    x, mean = affine.source, flat(mean)
    grad_x, sums = native.backward_parts(
        x, grad, flat(kappa), flat(lambd), _layout(x), UNIT, paper,
        (flat(affine.scale), flat(affine.shift)), mean)
    n, c, h, w = x.shape
    norm_grads, grads = x.new_empty(2, c), x.new_empty(2, kappa.numel())
    native.library().batch_norm_aglu_grads(
        *map(native.pointer, (grad_x, x, sums, flat(weight), mean,
                              flat(invstd), norm_grads, grads)),
        int(batch_stats), c_int64(n), c_int64(h * w), c_int64(c),
        c_int64(int(kappa.numel() > 1)), native.threads(x))
    return (grad_x, *norm_grads.unbind(),
            *_parameter_grads(grads, kappa, lambd))


def block_end_forward(main: 'Affine', short: 'Affine', gate: Tensor,
                      kappa: Tensor, lambd: Tensor) -> Tensor:
    """Return ``aglu(gate * h + identity)``."""
    y = torch.empty_like(main.source)
    native.library().block_end_forward(
        *map(native.pointer, (main.source, short.source, y)),
        *_folded(main, short, gate), *_sizes(main.source, kappa, lambd),
        native.threads(y))
    return y


def block_end_backward(main: 'Affine', short: 'Affine', grad: Tensor,
                       gate: Tensor, kappa: Tensor, lambd: Tensor,
                       paper: bool) -> tuple:
    """Return the gradients for h, gate, identity, kappa and lambda."""
    x = main.source
    grad = grad.contiguous()
    grad_z, grad_h = torch.empty_like(x), torch.empty_like(x)
    n, c = x.shape[:2]
    grad_gate = x.new_empty(n, c)
    sums = torch.empty(n, c, 2, dtype=torch.float64)
    grads = x.new_empty(2, kappa.numel())
    native.library().block_end_backward(
        *map(native.pointer, (x, short.source, grad, grad_z, grad_h,
                              grad_gate, sums, grads)),
        *_folded(main, short, gate), *_sizes(x, kappa, lambd), int(paper),
        native.threads(x))
    return (grad_h, grad_gate.to(gate.dtype), grad_z,
            *_parameter_grads(grads, kappa, lambd))


def flat(parameter: Tensor) -> Tensor:
    """Return a tensor whose memory is that of the values in order, float32."""
    if parameter.dtype == torch.float32 and parameter.is_contiguous():
        return parameter
    return parameter.detach().to(torch.float32).contiguous()


def _layout(x: Tensor) -> native.Layout:
    n, c, h, w = x.shape
    return native.Layout(n * c, h * w, c, False)


def _folded(main: 'Affine', short: 'Affine', gate: Tensor) -> tuple:
    """Return pointers to scale and shift of both norms and to the gate."""
    tensors = [flat(main.scale), flat(main.shift), flat(gate), None, None]
    if short.scale is not None:
        tensors[3:] = flat(short.scale), flat(short.shift)
    return tuple(map(native.pointer, tensors))


def _sizes(x: Tensor, kappa: Tensor, lambd: Tensor) -> tuple:
    n, c, h, w = x.shape
    return (c_int64(n * c), c_int64(h * w), c_int64(c),
            native.pointer(flat(kappa)), native.pointer(flat(lambd)),
            c_int64(int(kappa.numel() > 1)))


def _parameter_grads(grads: Tensor, kappa: Tensor,
                     lambd: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the two rows in the shapes and dtypes of the parameters."""
    return tuple(
        row.reshape(parameter.shape).to(parameter.dtype)
        for row, parameter in zip(grads.unbind(), (kappa, lambd), strict=True))
