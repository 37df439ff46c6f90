"""Calls of the compiled CPU forms in ``csrc/residual_cpu.cpp``.

The names follow :mod:`apa_mm.functional.fused`, which is where the maths and
the arguments are described.
"""
from ctypes import c_int64
from typing import TYPE_CHECKING, Optional, Tuple

import torch
from torch import Tensor

from . import native
from .backend import choose_backend
from .formulas import UNIT

if TYPE_CHECKING:
    from .fused import Affine

__all__ = [
    'batch_norm_backward', 'batch_norm_forward', 'block_end_backward',
    'block_end_forward', 'moments', 'usable'
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


def moments(x: Tensor) -> Tuple[Tensor, Tensor]:
    """Return mean and biased variance per channel, each (C,), of NCHW."""
    n, c, h, w = x.shape
    rows = torch.empty(n, c, 2, dtype=torch.float64)
    native.library().row_moments(
        native.pointer(x), native.pointer(rows), c_int64(n * c),
        c_int64(h * w), native.threads(x))
    # Chan's formula joins the rows: within plus between.
    mean = rows[..., 0].mean(0)
    between = (rows[..., 0] - mean).square().sum(0) * (h * w)
    var = (rows[..., 1].sum(0) + between) / (n * h * w)
    return mean.float(), var.float()


def batch_norm_forward(affine: 'Affine', kappa: Tensor,
                       lambd: Tensor) -> Tensor:
    """Return ``aglu(scale * x + shift)``."""
    return native.forward(affine.source, flat(kappa), flat(lambd),
                          _layout(affine.source), UNIT,
                          (flat(affine.scale), flat(affine.shift)))


def batch_norm_backward(affine: 'Affine', grad: Tensor, mean: Tensor,
                        invstd: Tensor, kappa: Tensor, lambd: Tensor,
                        batch_stats: bool, paper: bool) -> tuple:
    """Return the gradients for x, weight, bias, kappa and lambda."""
    x, scale = affine.source, flat(affine.scale)
    grad_x, sums = native.backward(x, grad, flat(kappa), flat(lambd),
                                   _layout(x), UNIT, paper,
                                   (scale, flat(affine.shift)), flat(mean))
    total, covariance = sums[:, 2], sums[:, 3]
    slope, offset = torch.zeros(2, len(scale))
    if batch_stats:
        count = x.numel() // len(scale)
        pull = scale.double() * covariance * invstd.double().square() / count
        slope = -pull.float()
        offset = (pull * mean - scale * total / count).float()
    n, c, h, w = x.shape
    native.library().batch_norm_grad(
        native.pointer(grad_x), native.pointer(x), native.pointer(scale),
        native.pointer(slope), native.pointer(offset), c_int64(n * c),
        c_int64(h * w), c_int64(c), native.threads(x))
    return (grad_x, (covariance * invstd).float(), total.float(),
            *_parameter_grads(sums, kappa, lambd))


def block_end_forward(main: 'Affine', short: 'Affine', gate: Tensor,
                      kappa: Tensor, lambd: Tensor) -> Tensor:
    """Return ``aglu(gate * h + identity)``."""
    y = torch.empty_like(main.source)
    a, b, c = _fold(main, short, gate)
    native.library().block_end_forward(
        *map(native.pointer, (main.source, short.source, y, a, b, c)),
        *_sizes(main.source, kappa, lambd), native.threads(y))
    return y


def block_end_backward(main: 'Affine', short: 'Affine', grad: Tensor,
                       gate: Tensor, kappa: Tensor, lambd: Tensor,
                       paper: bool) -> tuple:
    """Return the gradients for h, gate, identity, kappa and lambda."""
    x = main.source
    grad = grad.contiguous()
    grad_z, grad_h = torch.empty_like(x), torch.empty_like(x)
    n, c = x.shape[:2]
    sums = torch.empty(n, c, 4, dtype=torch.float64)
    center = torch.zeros(c)
    folded = _fold(main, short, gate)
    wide_gate = gate.detach().float().contiguous()
    native.library().block_end_backward(
        *map(native.pointer,
             (x, short.source, grad, grad_z, grad_h, sums, *folded, wide_gate,
              center)), *_sizes(x, kappa, lambd), int(paper),
        native.threads(x))
    # h = scale * x + shift, summed against grad_z.
    grad_gate = main.scale * sums[..., 3] + main.shift * sums[..., 2]
    return (grad_h, grad_gate.to(gate.dtype), grad_z,
            *_parameter_grads(sums.sum(0), kappa, lambd))


def flat(parameter: Tensor) -> Tensor:
    """Return one parameter per channel, or a shared one, ready to be read."""
    return parameter.detach().reshape(-1).to(torch.float32).contiguous()


def _layout(x: Tensor) -> native.Layout:
    n, c, h, w = x.shape
    return native.Layout(n * c, h * w, c, False)


def _fold(main: 'Affine', short: 'Affine',
          gate: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Return a, b, c of ``z = a * x + b * d + c`` per row, each (N, C)."""
    gate = gate.detach().float()
    a = main.scale * gate
    c = main.shift * gate
    b = torch.ones_like(gate)
    if short.scale is not None:
        b, c = b * short.scale, c + short.shift
    return tuple(t.float().contiguous() for t in (a, b, c))


def _sizes(x: Tensor, kappa: Tensor, lambd: Tensor) -> tuple:
    n, c, h, w = x.shape
    return (c_int64(n * c), c_int64(h * w), c_int64(c),
            native.pointer(flat(kappa)), native.pointer(flat(lambd)),
            c_int64(int(kappa.numel() > 1)))


def _parameter_grads(sums: Tensor, kappa: Tensor,
                     lambd: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the gradients from per-channel sums, summed if shared."""
    grads = []
    for column, parameter in ((0, kappa), (1, lambd)):
        values = sums[:, column]
        if parameter.numel() == 1:
            values = values.sum()
        grads.append(values.reshape(parameter.shape).to(parameter.dtype))
    return tuple(grads)
