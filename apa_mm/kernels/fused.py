"""BatchNorm + AGLU, and the end of a residual block, without extra memory.

ReLU costs no memory in training: the next convolution keeps its output
anyway. AGLU keeps its input too. That input is the output of BatchNorm, an
affine map of what BatchNorm keeps anyway, so these functions keep BatchNorm's
input and compute the affine map again in the backward pass. Values and
gradients are those of the separate layers.

Shapes: N images, C channels, H x W pixels.
"""
from ctypes import c_double, c_int64
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from . import native
from .activation import (activate, choose_backend, gradients_of, is_plain,
                         refuse_second_order)
from .formulas import UNIT

__all__ = [
    'Affine', 'batch_norm_aglu', 'batch_statistics',
    'inference_norm_aglu', 'inference_residual_aglu', 'residual_aglu', 'usable'
]

REMEDY = "set fuse=False on the backbone or block, or APA_MM_BACKEND='eager'"


class Affine(NamedTuple):
    """A tensor as an affine map of another one that is kept anyway."""

    source: Tensor  # input of a BatchNorm layer, (N, C, H, W)
    scale: Tensor  # weight / sqrt(var + eps), (C,)
    shift: Tensor  # bias - mean * scale, (C,)

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor,
           invstd: Tensor) -> 'Affine':
        """Return BatchNorm's output as an affine map of its input."""
        scale = weight * invstd
        return cls(x, scale, bias - mean * scale)

    def compute(self) -> Tensor:
        """Return the tensor itself, (N, C, H, W), in the source's dtype."""
        scale, shift = (v[:, None, None] for v in (self.scale, self.shift))
        return torch.addcmul(shift, self.source, scale).to(self.source.dtype)


class _BatchNormAGLU(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor,
                mean: Tensor, invstd: Tensor, kappa: Tensor, lambd: Tensor,
                batch_stats: bool, paper: bool) -> Tensor:
        ctx.save_for_backward(x, weight, bias, mean, invstd, kappa, lambd)
        ctx.batch_stats, ctx.paper = batch_stats, paper
        return inference_norm_aglu(Affine.of(x, weight, bias, mean, invstd),
                                   kappa=kappa, lambd=lambd, inplace=False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        refuse_second_order(REMEDY)
        x, weight, bias, mean, invstd, kappa, lambd = ctx.saved_tensors
        affine = Affine.of(x, weight, bias, mean, invstd)
        if usable(x, parameters=(kappa, lambd)):
            grads = _batch_norm_backward(
                affine, grad, weight, mean, invstd, kappa, lambd,
                ctx.batch_stats, ctx.paper)
        else:
            grad_z, grad_kappa, grad_lambd = _aglu_backward(
                affine.compute(), grad, kappa, lambd, ctx.paper)
            grads = torch.ops.aten.native_batch_norm_backward(
                grad_z, x, weight, mean, invstd.pow(-2), mean, invstd,
                ctx.batch_stats, 0.0, [True, True, True])
            grads = (*grads, grad_kappa, grad_lambd)
        grad_x, grad_weight, grad_bias, grad_kappa, grad_lambd = grads
        return (grad_x, grad_weight, grad_bias, None, None, grad_kappa,
                grad_lambd, None, None)


class _ResidualAGLU(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, h: Tensor, gate: Tensor, identity: Tensor,
                kappa: Tensor, lambd: Tensor, paper: bool,
                *kept: Tensor) -> Tensor:
        ctx.save_for_backward(gate, kappa, lambd, *kept)
        ctx.paper = paper
        main, short = _unpack(kept)
        ctx.native = usable(main.source, _source(short),
                            parameters=(kappa, lambd))
        if ctx.native:
            return _block_end_forward(main, short, gate, kappa, lambd)
        z = h * gate[:, :, None, None] + identity
        return activate(z, kappa, lambd, UNIT)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        refuse_second_order(REMEDY)
        gate, kappa, lambd, *kept = ctx.saved_tensors
        main, short = _unpack(kept)
        if ctx.native:
            grads = _block_end_backward(main, short, grad, gate, kappa, lambd,
                                        ctx.paper)
        else:
            h, wide_gate = main.compute(), gate[:, :, None, None]
            grad_z, *rest = _aglu_backward(h * wide_gate + _value(short),
                                           grad, kappa, lambd, ctx.paper)
            grads = (grad_z * wide_gate, (grad_z * h).sum(
                (2, 3)).to(gate.dtype), grad_z, *rest)
        return (*grads, None, *([None] * len(kept)))


#: The shortcut: a tensor, or the output of a norm as a map of its input.
Shortcut = Union[Tensor, Affine]


def _unpack(kept: Sequence[Tensor]) -> Tuple[Affine, Shortcut]:
    """Undo ``(*main, *short)`` or, for a plain tensor, ``(*main, short)``."""
    return Affine(*kept[:3]), Affine(*kept[3:]) if kept[4:] else kept[3]


def _source(short: Shortcut) -> Tensor:
    return short.source if isinstance(short, Affine) else short


def _value(short: Shortcut) -> Tensor:
    return short.compute() if isinstance(short, Affine) else short


def _aglu_backward(z: Tensor, grad: Tensor, kappa: Tensor, lambd: Tensor,
                   paper: bool) -> List[Tensor]:
    return gradients_of(lambda *t: activate(*t, UNIT, paper),
                        (z, kappa, lambd), grad, (True, ) * 3)


def batch_norm_aglu(x: Tensor,
                    weight: Tensor,
                    bias: Tensor,
                    mean: Tensor,
                    invstd: Tensor,
                    *,
                    kappa: Tensor,
                    lambd: Tensor,
                    batch_stats: bool,
                    lambda_grad: str = 'exact') -> Tensor:
    """Return ``aglu(batch_norm(x))``, (N, C, H, W), and keep only ``x``.

    ``mean`` and ``invstd``, ``1 / sqrt(var + eps)``, are (C,) as weight and
    bias; with ``batch_stats`` they are those of ``x``, and the gradient flows
    through them to it. kappa and lambda, positive, are one value or (C, 1,
    1); ``lambda_grad`` as in :func:`apa_mm.functional.aglu`.
    """
    return _BatchNormAGLU.apply(x, weight, bias, mean, invstd, kappa, lambd,
                                batch_stats, lambda_grad == 'paper')


def residual_aglu(h: Tensor,
                  gate: Tensor,
                  identity: Tensor,
                  main: Affine,
                  short: Optional[Affine] = None,
                  *,
                  kappa: Tensor,
                  lambd: Tensor,
                  lambda_grad: str = 'exact') -> Tensor:
    """Return ``aglu(h * gate + identity)`` without keeping h or the sum.

    ``gate`` is (N, C), the others (N, C, H, W). ``main`` is ``h`` and
    ``short`` the shortcut as a map of its BatchNorm's input; None keeps the
    shortcut, as the block's first convolution does anyway. Other arguments as
    in :func:`batch_norm_aglu`.
    """
    kept = (t.detach() for t in (*main, *(short or (identity, ))))
    return _ResidualAGLU.apply(h, gate, identity, kappa, lambd,
                               lambda_grad == 'paper', *kept)


def inference_norm_aglu(x: Affine, *, kappa: Tensor, lambd: Tensor,
                        inplace: bool) -> Tensor:
    """Return ``aglu(x)`` in one pass, without gradients.

    Arguments as in :func:`batch_norm_aglu`. ``inplace`` allows the result to
    take the memory of ``x.source``: a third less is moved.
    """
    if not usable(x.source, parameters=(kappa, lambd)):
        return activate(x.compute(), kappa, lambd, UNIT)
    return native.forward(
        x.source, native.flat(kappa), native.flat(lambd), _layout(x.source),
        UNIT, (native.flat(x.scale), native.flat(x.shift)), inplace)


def inference_residual_aglu(main: Affine, gate: Tensor, short: Shortcut, *,
                            kappa: Tensor, lambd: Tensor,
                            inplace: bool) -> Tensor:
    """Return ``aglu(main * gate + short)`` in one pass, without gradients.

    Arguments as in :func:`residual_aglu`; a shortcut that ends with a norm is
    given as a map of that norm's input. ``inplace`` allows the result to take
    the memory of ``main.source``.
    """
    if usable(main.source, _source(short), parameters=(kappa, lambd)):
        return _block_end_forward(main, short, gate, kappa, lambd, inplace)
    z = main.compute() * gate[:, :, None, None] + _value(short)
    return activate(z, kappa, lambd, UNIT)


def usable(*maps: Tensor, parameters: Sequence[Tensor] = ()) -> bool:
    """Return whether the compiled form takes these: float32, NCHW, CPU."""
    return (is_plain(*maps, *parameters)
            and choose_backend(maps[0]) == 'native'
            and all(x.dtype == torch.float32 and x.dim() == 4 and x.numel()
                    and x.is_contiguous() for x in maps)
            and len({p.numel() for p in parameters}) < 2)


def batch_statistics(x: Tensor, running_mean: Tensor, running_var: Tensor,
                     eps: float, factor: float) -> Tuple[Tensor, Tensor]:
    """Return mean and 1 / std (C,) of NCHW; move the running ones in place.

    ``factor`` is the share of the new values in them; the running variance is
    unbiased. There must be more than one value per channel.
    """
    n, c, h, w = x.shape
    mean, invstd = x.new_empty(c), x.new_empty(c)
    native.library().batch_statistics(
        *map(native.pointer, (x, mean, invstd, running_mean, running_var)),
        c_double(eps), c_double(factor), c_int64(n), c_int64(h * w),
        c_int64(c), native.threads(x))
    return mean, invstd


def _batch_norm_backward(affine: Affine, grad: Tensor, weight: Tensor,
                         mean: Tensor, invstd: Tensor, kappa: Tensor,
                         lambd: Tensor, batch_stats: bool,
                         paper: bool) -> tuple:
    """Return the gradients for x, weight, bias, kappa and lambda."""
    x, mean = affine.source, native.flat(mean)
    grad_x, sums = native.backward_parts(
        x, grad, native.flat(kappa), native.flat(lambd), _layout(x), UNIT,
        paper, (native.flat(affine.scale), native.flat(affine.shift)), mean)
    n, c, h, w = x.shape
    norm_grads, grads = x.new_empty(2, c), x.new_empty(2, kappa.numel())
    native.library().batch_norm_aglu_grads(
        *map(native.pointer, (grad_x, x, sums, native.flat(weight), mean,
                              native.flat(invstd), norm_grads, grads)),
        int(batch_stats), c_int64(n), c_int64(h * w), c_int64(c),
        c_int64(int(kappa.numel() > 1)), native.threads(x))
    return (grad_x, *norm_grads.unbind(),
            *_parameter_grads(grads, kappa, lambd))


def _block_end_forward(main: Affine, short: Shortcut, gate: Tensor,
                       kappa: Tensor, lambd: Tensor,
                       inplace: bool = False) -> Tensor:
    """Return ``aglu(gate * h + identity)``."""
    y = main.source if inplace else torch.empty_like(main.source)
    native.library().block_end_forward(
        *map(native.pointer, (main.source, _source(short), y)),
        *_folded(main, short, gate), *_sizes(main.source, kappa, lambd),
        native.threads(y))
    return y


def _block_end_backward(main: Affine, short: Shortcut, grad: Tensor,
                        gate: Tensor, kappa: Tensor, lambd: Tensor,
                        paper: bool) -> tuple:
    """Return the gradients for h, gate, identity, kappa and lambda."""
    x = main.source
    grad = grad.contiguous()
    grad_z, grad_h = torch.empty_like(x), torch.empty_like(x)
    n, c = x.shape[:2]
    grad_gate = x.new_empty(n, c)
    sums = x.new_empty((n, c, 2), dtype=torch.float64)
    grads = x.new_empty(2, kappa.numel())
    native.library().block_end_backward(
        *map(native.pointer, (x, _source(short), grad, grad_z, grad_h,
                              grad_gate, sums, grads)),
        *_folded(main, short, gate), *_sizes(x, kappa, lambd), int(paper),
        native.threads(x))
    return (grad_h, grad_gate.to(gate.dtype), grad_z,
            *_parameter_grads(grads, kappa, lambd))


def _layout(x: Tensor) -> native.Layout:
    n, c, h, w = x.shape
    return native.Layout(n * c, h * w, c, False)


def _folded(main: Affine, short: Shortcut, gate: Tensor) -> tuple:
    """Return pointers to scale and shift of both norms and to the gate."""
    tensors = [main.scale, main.shift, gate]
    folded = isinstance(short, Affine)
    if folded:
        tensors += [short.scale, short.shift]
    pointers = [native.pointer(native.flat(t)) for t in tensors]
    return (*pointers, *([] if folded else [native.pointer(None)] * 2))


def _sizes(x: Tensor, kappa: Tensor, lambd: Tensor) -> tuple:
    n, c, h, w = x.shape
    return (c_int64(n * c), c_int64(h * w), c_int64(c),
            native.pointer(native.flat(kappa)),
            native.pointer(native.flat(lambd)),
            c_int64(int(kappa.numel() > 1)))


def _parameter_grads(grads: Tensor, kappa: Tensor,
                     lambd: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the two rows in the shapes and dtypes of the parameters."""
    return tuple(
        row.reshape(parameter.shape).to(parameter.dtype)
        for row, parameter in zip(grads.unbind(), (kappa, lambd), strict=True))
