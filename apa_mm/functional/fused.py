"""BatchNorm + AGLU, and the end of a residual block, without extra memory.

ReLU costs no memory in training: the next convolution keeps its output
anyway. AGLU keeps its input too. That input is the output of BatchNorm, an
affine map of what BatchNorm keeps anyway, so these functions keep BatchNorm's
input and compute the affine map again in the backward pass. Values and
gradients are those of the separate layers.

Shapes: N images, C channels, H x W pixels.
"""
from typing import Any, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from . import fused_native
from .apa_autograd import APAFunction
from .backend import choose_backend
from .formulas import UNIT

__all__ = ['Affine', 'batch_norm_aglu', 'residual_aglu']


class Affine(NamedTuple):
    """A tensor as an affine map of another one that is kept anyway.

    Attributes:
        source (Tensor): (N, C, H, W), input of a BatchNorm layer.
        scale (Tensor): (C,), ``weight / sqrt(var + eps)``.
        shift (Tensor): (C,), ``bias - mean * scale``.
    """

    source: Tensor
    scale: Tensor
    shift: Tensor

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
        affine = Affine.of(x, weight, bias, mean, invstd)
        ctx.native = fused_native.usable(x, kappa, lambd)
        if ctx.native:
            return fused_native.batch_norm_forward(affine, kappa, lambd)
        return _aglu_forward(affine.compute(), kappa, lambd)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight, bias, mean, invstd, kappa, lambd = ctx.saved_tensors
        affine = Affine.of(x, weight, bias, mean, invstd)
        if ctx.native:
            grads = fused_native.batch_norm_backward(
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
    def forward(ctx: Any, h: Optional[Tensor], gate: Tensor, identity: Tensor,
                kappa: Tensor, lambd: Tensor, paper: bool,
                *recipes: Optional[Tensor]) -> Tensor:
        # Recipes: source, scale, shift of h and of the identity.
        kept = list(recipes)
        if kept[3] is None:
            kept[3] = identity
        ctx.save_for_backward(gate, kappa, lambd, *kept)
        ctx.paper = paper
        main, short = Affine(*kept[:3]), Affine(*kept[3:])
        ctx.native = fused_native.usable(main.source, kappa, lambd,
                                         short.source)
        if ctx.native:
            return fused_native.block_end_forward(main, short, gate, kappa,
                                                  lambd)
        if h is None:
            h = main.compute()
            identity = identity if short.scale is None else short.compute()
        z = h * gate[:, :, None, None] + identity
        return _aglu_forward(z, kappa, lambd)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        gate, kappa, lambd, *kept = ctx.saved_tensors
        main, short = Affine(*kept[:3]), Affine(*kept[3:])
        if ctx.native:
            grads = fused_native.block_end_backward(main, short, grad, gate,
                                                    kappa, lambd, ctx.paper)
        else:
            h = main.compute()
            wide_gate = gate[:, :, None, None]
            identity = short.source if short.scale is None else short.compute()
            grad_z, *rest = _aglu_backward(h * wide_gate + identity, grad,
                                           kappa, lambd, ctx.paper)
            grads = (grad_z * wide_gate, (grad_z * h).sum(
                (2, 3)).to(gate.dtype), grad_z, *rest)
        return (*grads, None, *([None] * 6))


def _aglu_forward(z: Tensor, kappa: Tensor, lambd: Tensor) -> Tensor:
    return APAFunction.apply(z, kappa, lambd, UNIT, False, choose_backend(z))


def _aglu_backward(z: Tensor, grad: Tensor, kappa: Tensor, lambd: Tensor,
                   paper: bool) -> Tuple[Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in (z, kappa, lambd)]
        out = APAFunction.apply(*leaves, UNIT, paper, choose_backend(z))
    return torch.autograd.grad(out, leaves, grad)


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
    """Return ``aglu(batch_norm(x))`` and keep only ``x``.

    Args:
        x (Tensor): (N, C, H, W).
        weight (Tensor): (C,), BatchNorm's gain.
        bias (Tensor): (C,), BatchNorm's bias.
        mean (Tensor): (C,), mean of the batch or running mean; no gradient.
        invstd (Tensor): (C,), ``1 / sqrt(var + eps)`` of the same; no
            gradient.
        kappa (Tensor): One value, or (C, 1, 1).
        lambd (Tensor): Like ``kappa``, positive.
        batch_stats (bool): Whether mean and invstd are those of ``x``, so
            that the gradient flows through them.
        lambda_grad (str): See :func:`apa_mm.functional.aglu`.

    Returns:
        Tensor: (N, C, H, W), dtype of ``x``.
    """
    return _BatchNormAGLU.apply(x, weight, bias, mean, invstd, kappa, lambd,
                                batch_stats, lambda_grad == 'paper')


def residual_aglu(h: Optional[Tensor],
                  gate: Tensor,
                  identity: Tensor,
                  h_recipe: Affine,
                  identity_recipe: Optional[Affine] = None,
                  *,
                  kappa: Tensor,
                  lambd: Tensor,
                  lambda_grad: str = 'exact') -> Tensor:
    """Return ``aglu(h * gate + identity)`` without keeping h or the sum.

    Args:
        h (Tensor, optional): (N, C, H, W), output of the block's last
            BatchNorm. None without gradients, where the recipes say it all;
            ``identity`` is the source of its recipe then.
        gate (Tensor): (N, C), channel attention.
        identity (Tensor): (N, C, H, W), shortcut.
        h_recipe (Affine): ``h`` as a map of its BatchNorm's input.
        identity_recipe (Affine, optional): The same for the shortcut; None
            keeps the shortcut itself, which the block's first convolution
            keeps anyway.
        kappa (Tensor): One value, or (C, 1, 1).
        lambd (Tensor): Like ``kappa``, positive.
        lambda_grad (str): See :func:`apa_mm.functional.aglu`.

    Returns:
        Tensor: (N, C, H, W), dtype of the source of ``h``.
    """
    recipes = (t.detach() for t in (*h_recipe, *(identity_recipe or ())))
    missing = [None] * (0 if identity_recipe else 3)
    return _ResidualAGLU.apply(h, gate, identity, kappa, lambd,
                               lambda_grad == 'paper', *recipes, *missing)
