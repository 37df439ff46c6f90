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
    'Affine', 'Unwritten', 'batch_norm', 'batch_norm_aglu', 'batch_statistics',
    'inference_norm_aglu', 'inference_residual_aglu', 'residual_aglu', 'usable'
]

REMEDY = "set fuse=False on the backbone or block, or APA_MM_BACKEND='eager'"


class Affine(NamedTuple):
    """BatchNorm's output as an affine map of its input, which is kept anyway.

    ``scale`` is weight / sqrt(var + eps), ``shift`` is bias - mean * scale;
    None where the norm is folded into the convolution.
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


class Unwritten(NamedTuple):
    """BatchNorm's output, of which only the mean of every map is computed.

    ``output`` and ``sums`` hold no values. They take the gradient from what
    uses the output: (N, C, H, W), and three numbers per map, by which that is
    to be multiplied, its sum and its sum against ``source - mean``.
    """

    affine: Affine
    output: Tensor  # (N, C, H, W)
    sums: Tensor  # (N, C, 3)
    pooled: Optional[Tensor]  # (N, C)


class _BatchNorm(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor,
                mean: Tensor, invstd: Tensor, away: Optional[Tensor],
                batch_stats: bool) -> Tuple[Optional[Tensor], ...]:
        ctx.save_for_backward(x, weight, mean, invstd, away)
        ctx.batch_stats = batch_stats
        ctx.set_materialize_grads(False)
        pooled = None
        if away is not None:
            pooled = torch.addcmul(bias, away, weight * invstd).to(x.dtype)
        none = x.new_zeros((), dtype=torch.float64)
        return (none.to(x.dtype).expand(x.shape),
                none.expand(*x.shape[:2], 3), pooled)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, sums: Tensor,
                 grad_pooled: Optional[Tensor]) -> Tuple:
        x, weight, mean, invstd, away = ctx.saved_tensors
        if usable(x, grad):
            grads = _norm_grads(x, grad, weight, mean, invstd,
                                ctx.batch_stats, sums[..., 1:],
                                sums, grad_pooled, away)
        else:
            factor = sums[:, :, 0, None, None].to(grad.dtype)
            grad = grad * factor
            if grad_pooled is not None:
                share = grad_pooled / x.shape[2:].numel()
                grad = grad + share[:, :, None, None].to(grad.dtype)
            grads = _plain_norm_grads(x, grad, weight, mean, invstd,
                                      ctx.batch_stats)
        return (*grads, None, None, None, None)


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
            grad_z, sums = native.backward_parts(
                x, grad, native.flat(kappa), native.flat(lambd), _layout(x),
                UNIT, ctx.paper, _flat(affine.scale, affine.shift),
                native.flat(mean))
            grads = _norm_grads(x, grad_z, weight, mean, invstd,
                                ctx.batch_stats, sums[:, 2:], out=grad_z)
            unit_grads = _parameter_grads(sums, x, kappa, lambd)
        else:
            grad_z, *unit_grads = _aglu_backward(affine.compute(), grad, kappa,
                                                 lambd, ctx.paper)
            grads = _plain_norm_grads(x, grad_z, weight, mean, invstd,
                                      ctx.batch_stats)
        return (*grads, None, None, *unit_grads, None, None)


class _ResidualAGLU(torch.autograd.Function):
    """``short_sums`` is None where the shortcut does not end with a norm."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, sums: Tensor, gate: Tensor,
                identity: Tensor, short_sums: Optional[Tensor], kappa: Tensor,
                lambd: Tensor, paper: bool, *kept: Tensor) -> Tensor:
        ctx.save_for_backward(gate, kappa, lambd, *kept)
        ctx.paper = paper
        main, short = _unpack(kept)
        return inference_residual_aglu(main, gate, short, kappa=kappa,
                                       lambd=lambd, inplace=False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        refuse_second_order(REMEDY)
        gate, kappa, lambd, *kept = ctx.saved_tensors
        main, short = _unpack(kept)
        if usable(main.source, _source(short), parameters=(kappa, lambd)):
            grads = _block_end_backward(main, short, grad, gate, kappa, lambd,
                                        ctx.paper)
        else:
            h = main.compute()
            grad_z, *rest = _aglu_backward(
                h * gate[:, :, None, None] + _value(short), grad, kappa, lambd,
                ctx.paper)
            grad_gate = (grad_z * h).sum((2, 3)).to(gate.dtype)
            short_sums = _sums(grad_z, torch.ones_like(gate), short)
            grads = (grad_z, _sums(grad_z, gate, main), grad_gate, grad_z,
                     short_sums, *rest)
        return (*grads, None, *([None] * len(kept)))


def _sums(grad: Tensor, factor: Tensor, short: 'Shortcut') -> Optional[Tensor]:
    """Return what :class:`Unwritten` takes."""
    if not isinstance(short, Affine):
        return None
    away = short.source - short.mean[:, None, None]
    return torch.stack([t.double() for t in (
        factor, grad.sum((2, 3)), (grad * away).sum((2, 3)))], -1)


#: The shortcut: a tensor, or the output of a norm as a map of its input.
Shortcut = Union[Tensor, Affine]


def _unpack(kept: Sequence[Tensor]) -> Tuple[Affine, Shortcut]:
    """Undo ``(*main, *short)`` or, for a plain tensor, ``(*main, short)``."""
    return Affine(*kept[:4]), Affine(*kept[4:]) if kept[5:] else kept[4]


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


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor,
               invstd: Tensor, away: Optional[Tensor], *,
               batch_stats: bool) -> Unwritten:
    """Return ``batch_norm(x)`` for :func:`residual_aglu`, which computes it.

    ``away`` (N, C) is the mean of every map of ``x`` less that of its
    channel, and gives the mean of the output's maps; None leaves that out.
    Other arguments as in :func:`batch_norm_aglu`.
    """
    affine = Affine.of(*(t.detach() for t in (x, weight, bias, mean, invstd)))
    return Unwritten(affine, *_BatchNorm.apply(x, weight, bias, mean, invstd,
                                               away, batch_stats))


def residual_aglu(main: Unwritten, gate: Tensor,
                  short: Union[Tensor, Unwritten], *, kappa: Tensor,
                  lambd: Tensor, lambda_grad: str = 'exact') -> Tensor:
    """Return ``aglu(main * gate + short)`` without keeping the sum.

    ``gate`` is (N, C), the others (N, C, H, W). A plain shortcut is kept, as
    the block's first convolution does anyway. Other arguments as in
    :func:`batch_norm_aglu`.
    """
    if isinstance(short, Unwritten):
        identity, short_sums, kept = short.output, short.sums, short.affine
    else:
        identity, short_sums, kept = short, None, (short.detach(), )
    return _ResidualAGLU.apply(main.output, main.sums, gate, identity,
                               short_sums, kappa, lambd,
                               lambda_grad == 'paper', *main.affine, *kept)


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
        UNIT, x.scale is not None and _flat(x.scale, x.shift), inplace)


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


def _plain_norm_grads(x: Tensor, grad: Tensor, weight: Tensor, mean: Tensor,
                      invstd: Tensor, batch_stats: bool) -> tuple:
    return torch.ops.aten.native_batch_norm_backward(
        grad, x, weight, mean, invstd.pow(-2), mean, invstd, batch_stats, 0.0,
        [True, True, True])


def _norm_grads(x: Tensor, grad: Tensor, weight: Tensor, mean: Tensor,
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
    norm_grads = x.new_empty(2, c)
    if grad_pooled is not None:
        grad_pooled = native.flat(grad_pooled)
    native.library().batch_norm_grads(
        *map(native.pointer, (grad, x, out, sums, factor, grad_pooled, away,
                              *_flat(weight, mean, invstd), norm_grads)),
        c_int64(sums.stride(-2)), int(batch_stats), c_int64(n), c_int64(h * w),
        c_int64(c), native.threads(x))
    return (out, *norm_grads.unbind())


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
    """Return the gradients that :class:`_ResidualAGLU` does."""
    x, means = main.source, [native.flat(main.mean), None]
    grad_z, grad_gate = torch.empty_like(x), x.new_empty(x.shape[:2])
    sums, short_sums = x.new_empty((2, *x.shape[:2], 3), dtype=torch.float64)
    if isinstance(short, Affine):
        means[1] = native.flat(short.mean)
    unit_sums = x.new_empty((*x.shape[:2], 5), dtype=torch.float64)
    native.library().block_end_backward(
        *map(native.pointer, (x, _source(short), grad.contiguous(), grad_z,
                              grad_gate, sums, short_sums, unit_sums, *means)),
        *_folded(main, short, gate), *_sizes(x, kappa, lambd), int(paper),
        native.threads(x))
    return (grad_z, sums, grad_gate.to(gate.dtype), grad_z,
            short_sums if isinstance(short, Affine) else None,
            *_parameter_grads(unit_sums, x, kappa, lambd))


def _layout(x: Tensor) -> native.Layout:
    n, c, h, w = x.shape
    return native.Layout(n * c, h * w, c, False)


def _folded(main: Affine, short: Shortcut, gate: Tensor) -> map:
    """Return pointers to scale and shift of both norms and to the gate."""
    other = short if isinstance(short, Affine) else Affine(short)
    return map(native.pointer, _flat(main.scale, main.shift, gate, other.scale,
                                     other.shift))


def _flat(*tensors: Optional[Tensor]) -> List[Optional[Tensor]]:
    return [None if t is None else native.flat(t) for t in tensors]


def _sizes(x: Tensor, kappa: Tensor, lambd: Tensor) -> tuple:
    n, c, h, w = x.shape
    return (c_int64(n * c), c_int64(h * w), c_int64(c),
            native.pointer(native.flat(kappa)),
            native.pointer(native.flat(lambd)),
            c_int64(int(kappa.numel() > 1)))


def _parameter_grads(sums: Tensor, x: Tensor, kappa: Tensor,
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
