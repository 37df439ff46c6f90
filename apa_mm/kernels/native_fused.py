"""Calls of the compiled forms of BatchNorm, block ends and AGLU after them.

Shapes: N images, C channels, H x W pixels.
"""
from ctypes import c_double, c_int64
from typing import List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from . import native
from .activation import choose_backend, is_plain
from .formulas import UNIT


class Affine(NamedTuple):
    """BatchNorm's output as an affine map of its input, which is kept anyway.

    ``scale`` is weight / sqrt(var + eps), ``shift`` is bias - mean * scale;
    all three are None for a tensor as it is.
    """

    source: Tensor  # (N, C, H, W)
    scale: Optional[Tensor] = None  # this and what follows: (C,)
    shift: Optional[Tensor] = None
    mean: Optional[Tensor] = None

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor,
           invstd: Tensor) -> 'Affine':
        """Return the map for BatchNorm's parameters and statistics."""
        scale = weight * invstd
        return cls(x, scale, bias - mean * scale, mean)

    def compute(self) -> Tensor:
        """Return the tensor itself, (N, C, H, W), in the source's dtype."""
        if self.scale is None:
            return self.source
        scale, shift = (v[:, None, None] for v in (self.scale, self.shift))
        return torch.addcmul(shift, self.source, scale).to(self.source.dtype)


def usable(*maps: Tensor, parameters: Sequence[Tensor] = ()) -> bool:
    """Return whether the compiled form takes these: float32, NCHW, CPU."""
    if not is_plain(*maps, *parameters):
        return False
    for x in maps:
        if (x.dtype != torch.float32 or x.dim() != 4 or not x.numel()
                or not x.is_contiguous()):
            return False
    return (choose_backend(maps[0]) == 'native'
            and len({p.numel() for p in parameters}) < 2)


def batch_statistics(x: Tensor, running_mean: Tensor, running_var: Tensor,
                     eps: float, factor: float) -> Tuple[Tensor, ...]:
    """Return mean and 1 / std (C,) of NCHW; move the running ones in place.

    The third result (N, C) is the mean of every map less that of its channel.
    ``factor`` is the share of the new values in the running statistics, whose
    variance is unbiased. There must be more than one value per channel.
    """
    n, c, h, w = x.shape
    mean, invstd, away = x.new_empty(c), x.new_empty(c), x.new_empty(n, c)
    native.library().batch_statistics(
        *map(native.pointer, (x, mean, invstd, away, running_mean,
                              running_var)),
        c_double(eps), c_double(factor), c_int64(n), c_int64(h * w),
        c_int64(c), native.threads(x))
    return mean, invstd, away


def norm_grads(x: Tensor, grad: Tensor, weight: Tensor, mean: Tensor,
               invstd: Tensor, batch_stats: bool, sums: Tensor,
               factor: Optional[Tensor] = None,
               grad_pooled: Optional[Tensor] = None,
               away: Optional[Tensor] = None,
               out: Optional[Tensor] = None) -> tuple:
    """Return BatchNorm's gradients for x, weight and bias.

    The gradient for its output is ``grad * factor``, and that for its pooled
    output spread over the map. ``sums`` starts with the two sums of ``grad``
    over a map, ``factor`` has the same strides. ``out`` may be ``grad``.
    """
    n, c, h, w = x.shape
    out = torch.empty_like(x) if out is None else out
    vectors = x.new_empty(2, c)
    native.library().batch_norm_grads(
        *map(native.pointer, (grad, x, out, sums, factor, *_flat(
            grad_pooled, away, weight, mean, invstd), vectors)),
        c_int64(sums.stride(-2)), int(batch_stats), c_int64(n), c_int64(h * w),
        c_int64(c), native.threads(x))
    return (out, *vectors.unbind())


def block_end_forward(main: Affine, short: Affine, gate: Tensor,
                      kappa: Tensor, lambd: Tensor, inplace: bool) -> Tensor:
    """Return ``aglu(gate * main + short)``."""
    y = main.source if inplace else torch.empty_like(main.source)
    native.library().block_end_forward(
        *map(native.pointer, (main.source, short.source, y)),
        *_folded(main, short, gate), *_sizes(main.source, kappa, lambd),
        native.threads(y))
    return y


def block_end_backward(main: Affine, short: Affine, grad: Tensor,
                       gate: Tensor, kappa: Tensor, lambd: Tensor,
                       paper: bool) -> tuple:
    """Return the gradients for both norms' outputs, gate, kappa and lambda.

    Those for the outputs, and three numbers per map with them, are what
    :class:`~apa_mm.kernels.fused.Unwritten` takes, in the order main, gate,
    short.
    """
    x = main.source
    grad_z, grad_gate = torch.empty_like(x), x.new_empty(x.shape[:2])
    sums, short_sums = x.new_empty((2, *x.shape[:2], 3), dtype=torch.float64)
    unit_sums = x.new_empty((*x.shape[:2], 5), dtype=torch.float64)
    native.library().block_end_backward(
        *map(native.pointer, (x, short.source, grad.contiguous(), grad_z,
                              grad_gate, sums, short_sums, unit_sums,
                              *_flat(main.mean, short.mean))),
        *_folded(main, short, gate), *_sizes(x, kappa, lambd), int(paper),
        native.threads(x))
    return (grad_z, sums, grad_gate.to(gate.dtype), grad_z,
            None if short.mean is None else short_sums,
            *parameter_grads(unit_sums, x, kappa, lambd))


def norm_aglu_forward(x: Affine, kappa: Tensor, lambd: Tensor,
                      inplace: bool) -> Tensor:
    """Return ``aglu(x)``."""
    return native.forward(
        x.source, native.flat(kappa), native.flat(lambd), _layout(x.source),
        UNIT, _flat(x.scale, x.shift), inplace)


def norm_aglu_backward(x: Affine, grad: Tensor, kappa: Tensor, lambd: Tensor,
                       paper: bool) -> Tuple[Tensor, Tensor]:
    """Return what :func:`~apa_mm.kernels.native.backward_parts` does."""
    return native.backward_parts(
        x.source, grad, native.flat(kappa), native.flat(lambd),
        _layout(x.source), UNIT, paper, _flat(x.scale, x.shift),
        native.flat(x.mean))


def _layout(x: Tensor) -> native.Layout:
    n, c, h, w = x.shape
    return native.Layout(n * c, h * w, c, False)


def _folded(main: Affine, short: Affine, gate: Tensor) -> map:
    """Return pointers to scale and shift of both norms and to the gate."""
    return map(native.pointer, _flat(main.scale, main.shift, gate, short.scale,
                                     short.shift))


def _flat(*tensors: Optional[Tensor]) -> List[Optional[Tensor]]:
    return [None if t is None else native.flat(t) for t in tensors]


def _sizes(x: Tensor, kappa: Tensor, lambd: Tensor) -> tuple:
    n, c, h, w = x.shape
    return (c_int64(n * c), c_int64(h * w), c_int64(c),
            native.pointer(native.flat(kappa)),
            native.pointer(native.flat(lambd)),
            c_int64(int(kappa.numel() > 1)))


def parameter_grads(sums: Tensor, x: Tensor, kappa: Tensor,
                    lambd: Tensor) -> Tuple[Tensor, Tensor]:
    """Add up columns 0 and 1, one row per map, in the parameters' shapes."""
    n, c = x.shape[:2]
    grads = x.new_empty(2, kappa.numel())
    native.library().parameter_grads(
        native.pointer(sums), c_int64(sums.shape[-1]), c_int64(n * c),
        c_int64(c), c_int64(int(kappa.numel() > 1)), native.pointer(grads))
    return tuple(
        row.reshape(parameter.shape).to(parameter.dtype)
        for row, parameter in zip(grads.unbind(), (kappa, lambd), strict=True))
