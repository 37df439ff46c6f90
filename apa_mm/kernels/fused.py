"""BatchNorm + AGLU, and the end of a residual block, without extra memory.

ReLU costs no memory in training: the next convolution keeps its output
anyway. AGLU keeps its input too. That input is the output of BatchNorm, an
affine map of what BatchNorm keeps anyway, so these functions keep BatchNorm's
input and compute the affine map again in the backward pass. Values and
gradients are those of the separate layers.

Shapes: N images, C channels, H x W pixels.
"""
from typing import Any, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .activation import (activate, gradients_of, is_plain,
                         refuse_second_order)
from .formulas import UNIT
from .native_fused import (Affine, block_end_backward, block_end_forward,
                           norm_aglu_backward, norm_aglu_forward, norm_grads,
                           parameter_grads, usable)

REMEDY = "set fuse=False on the backbone or block, or APA_MM_BACKEND='eager'"


class Unwritten(NamedTuple):
    """BatchNorm's output, of which only the mean of every map is computed.

    ``output`` and ``sums`` hold no values. They take the gradient from what
    uses the output: (N, C, H, W), and three numbers per map, by which that is
    to be multiplied, its sum and its sum against ``source - mean``.
    """

    affine: Affine
    output: Tensor  # (N, C, H, W)
    sums: Optional[Tensor] = None  # (N, C, 3)
    pooled: Optional[Tensor] = None  # (N, C)

    @classmethod
    def plain(cls, x: Tensor) -> 'Unwritten':
        """Return a tensor, (N, C, H, W), as if it were one."""
        return cls(Affine(x.detach()), x)


class _BatchNorm(torch.autograd.Function):
    """Gives what :class:`Unwritten` holds beside the map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor,
                mean: Tensor, invstd: Tensor, away: Optional[Tensor],
                batch_stats: bool) -> Tuple[Optional[Tensor], ...]:
        ctx.save_for_backward(x, weight, mean, invstd, away)
        ctx.batch_stats = batch_stats
        pooled = None
        if away is not None:
            pooled = torch.addcmul(bias, away, weight * invstd).to(x.dtype)
        none = x.new_zeros(())
        wide = torch.float64 if x.device.type == 'cpu' else torch.float32
        return (none.expand(x.shape), none.to(wide).expand(*x.shape[:2], 3),
                pooled)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, sums: Tensor,
                 grad_pooled: Optional[Tensor]) -> Tuple:
        refuse_second_order(REMEDY)
        x, weight, mean, invstd, away = ctx.saved_tensors
        if usable(x, grad):
            grads = norm_grads(x, grad, weight, mean, invstd, ctx.batch_stats,
                               sums[..., 1:], sums, grad_pooled, away)
        else:
            grad = grad * sums[:, :, 0, None, None].to(grad.dtype)
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
        if is_plain(grad) and usable(x, parameters=(kappa, lambd)):
            grad_z, sums = norm_aglu_backward(affine, grad, kappa, lambd,
                                              ctx.paper)
            grads = norm_grads(x, grad_z, weight, mean, invstd,
                               ctx.batch_stats, sums[:, 2:], out=grad_z)
            unit_grads = parameter_grads(sums, x, kappa, lambd)
        else:
            grad_z, *unit_grads = _aglu_backward(affine.compute(), grad, kappa,
                                                 lambd, ctx.paper)
            grads = _plain_norm_grads(x, grad_z, weight, mean, invstd,
                                      ctx.batch_stats)
        return (*grads, None, None, *unit_grads, None, None)


class _ResidualAGLU(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, main: Tensor, sums: Optional[Tensor], gate: Tensor,
                short: Tensor, short_sums: Optional[Tensor], kappa: Tensor,
                lambd: Tensor, paper: bool,
                *maps: Optional[Tensor]) -> Tensor:
        ctx.save_for_backward(gate, kappa, lambd, *maps)
        ctx.paper = paper
        return inference_residual_aglu(
            Affine(*maps[:4]), gate, Affine(*maps[4:]), kappa=kappa,
            lambd=lambd, inplace=False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        refuse_second_order(REMEDY)
        gate, kappa, lambd, *maps = ctx.saved_tensors
        main, short = Affine(*maps[:4]), Affine(*maps[4:])
        sources = main.source, short.source
        if is_plain(grad) and usable(*sources, parameters=(kappa, lambd)):
            grads = block_end_backward(main, short, grad, gate, kappa, lambd,
                                       ctx.paper)
        else:
            h = main.compute()
            grad_z, *rest = _aglu_backward(
                h * gate[:, :, None, None] + short.compute(), grad, kappa,
                lambd, ctx.paper)
            grad_gate = (grad_z * h).sum((2, 3)).to(gate.dtype)
            grads = (grad_z, _sums(grad_z, gate, main), grad_gate, grad_z,
                     _sums(grad_z, torch.ones_like(gate), short), *rest)
        return (*grads, None, *([None] * len(maps)))


def _sums(grad: Tensor, factor: Tensor, to: Affine) -> Optional[Tensor]:
    """Return the numbers that :class:`Unwritten` takes."""
    if to.mean is None:
        return None
    along = (grad * (to.source - to.mean[:, None, None])).sum((2, 3))
    return torch.stack([factor, grad.sum((2, 3)), along], -1)


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


def residual_aglu(main: Unwritten, gate: Tensor, short: Unwritten, *,
                  kappa: Tensor, lambd: Tensor,
                  lambda_grad: str = 'exact') -> Tensor:
    """Return ``aglu(main * gate + short)`` without keeping the sum.

    ``gate`` is (N, C), the others (N, C, H, W). A plain shortcut is kept, as
    the block's first convolution does anyway. Other arguments as in
    :func:`batch_norm_aglu`.
    """
    return _ResidualAGLU.apply(
        main.output, main.sums, gate, short.output, short.sums, kappa, lambd,
        lambda_grad == 'paper', *main.affine, *short.affine)


def inference_norm_aglu(x: Affine, *, kappa: Tensor, lambd: Tensor,
                        inplace: bool) -> Tensor:
    """Return ``aglu(x)`` in one pass, without gradients.

    Arguments as in :func:`batch_norm_aglu`. ``inplace`` allows the result to
    take the memory of ``x.source``: a third less is moved.
    """
    if not usable(x.source, parameters=(kappa, lambd)):
        return activate(x.compute(), kappa, lambd, UNIT)
    return norm_aglu_forward(x, kappa, lambd, inplace)


def inference_residual_aglu(main: Affine, gate: Tensor, short: Affine, *,
                            kappa: Tensor, lambd: Tensor,
                            inplace: bool) -> Tensor:
    """Return ``aglu(main * gate + short)`` in one pass, without gradients.

    Arguments as in :func:`residual_aglu`. ``inplace`` allows the result to
    take the memory of ``main.source``.
    """
    if usable(main.source, short.source, parameters=(kappa, lambd)):
        return block_end_forward(main, short, gate, kappa, lambd, inplace)
    z = main.compute() * gate[:, :, None, None] + short.compute()
    return activate(z, kappa, lambd, UNIT)


def _plain_norm_grads(x: Tensor, grad: Tensor, weight: Tensor, mean: Tensor,
                      invstd: Tensor, batch_stats: bool) -> tuple:
    return torch.ops.aten.native_batch_norm_backward(
        grad, x, weight.to(mean.dtype), mean, invstd.pow(-2), mean, invstd,
        batch_stats, 0.0, [True, True, True])
