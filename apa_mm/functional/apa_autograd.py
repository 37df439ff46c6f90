"""Forward and backward formulas of APA and AGLU, and the Function on top.

With ``t = log(lambda) - kappa * x`` and ``s = exp(t)``::

    eta           = (1 + s)^(-1 / lambda) = exp(-softplus(t) / lambda)
    d eta / d x   = kappa * g,  g = eta * sigmoid(t) / lambda
    d eta / d kappa  = x * g
    d eta / d lambda = eta * (log(1 + s) - s / (1 + s)) / lambda^2

Everything is evaluated in log space, so that no term overflows before it is
multiplied by one that vanishes. Only ``x``, ``kappa`` and ``lambda`` are kept
for the backward pass; the rest is computed again.
"""
import math
from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .kernels import find_kernel

__all__ = ['APAFunction', 'apa_forward', 'apa_gradients']

# Below this s the plain form log(1 + s) - s / (1 + s) cancels: its relative
# error is about 2 * eps / s, that is 2.4e-6 at 0.05 in float32. The series
# s^2/2 - 2s^3/3 + 3s^4/4 - ... is cut where its tail falls under the epsilon.
SERIES_BOUND = 0.05
SERIES_LOG_BOUND = math.log(SERIES_BOUND)
SERIES_TERMS = {torch.float32: 6, torch.float64: 12}


def _softplus(t: Tensor) -> Tensor:
    """Return log(1 + exp(t)), exact in both tails.

    torch's default threshold of 20 is 2e-9 off, too much for float64; its
    ``logsigmoid`` would lose the channels_last format.
    """
    return F.softplus(t, threshold=40)


def _series(s: Tensor) -> Tensor:
    """Return ``(log(1 + s) - s / (1 + s)) / s^2`` for ``0 <= s <= 0.05``."""
    terms = SERIES_TERMS[s.dtype]
    result = torch.full_like(s, (terms - 1) / terms)
    for k in range(terms - 1, 1, -1):
        result = (k - 1) / k - s * result
    return result


def apa_forward(x: Tensor, kappa: Tensor, lambd: Tensor) -> Tensor:
    """Return eta(x) (Eq. 5) for float32 or float64 tensors that broadcast."""
    t = x * -kappa + lambd.log()
    return torch.exp(-_softplus(t) / lambd)


def apa_gradients(x: Tensor, kappa: Tensor, lambd: Tensor,
                  paper: bool) -> Tuple[Tensor, Tensor, Tensor]:
    """Return eta, g and ``d eta / d lambda`` (see the module's header).

    Args:
        x (Tensor): Input, any shape, float32 or float64.
        kappa (Tensor): Broadcastable to ``x``.
        lambd (Tensor): Positive, broadcastable to ``x``.
        paper (bool): Return Eq. 8 of the paper in place of the true
            derivative. Eq. 8 holds the exponent ``-1 / lambda`` constant; it
            has the opposite sign and grows like ``1 / lambda``.
    """
    log_lambd = lambd.log()
    t = x * -kappa + log_lambd
    softplus = _softplus(t)
    log_eta = -softplus / lambd
    eta = log_eta.exp()
    g = torch.exp(log_eta - _softplus(-t) - log_lambd)
    if paper:
        return eta, g, -g / lambd
    plain = (softplus - t.sigmoid()) / lambd.square() * eta
    # s^2 / lambda^2 = exp(2 * shift); t is capped so that the branch that
    # torch.where throws away stays finite.
    small = t.clamp(max=SERIES_LOG_BOUND)
    series = torch.exp(log_eta + 2 * (small - log_lambd)) * _series(
        small.exp())
    return eta, g, torch.where(t > SERIES_LOG_BOUND, plain, series)


class APAFunction(torch.autograd.Function):
    """eta(x), or x * eta(x), that keeps nothing but its inputs.

    The formulas above serve every device; the compiled forms are called where
    they apply, see :mod:`apa_mm.functional.backend`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kappa: Tensor, lambd: Tensor,
                product: bool, paper: bool, backend: str) -> Tensor:
        """Return eta(x), or its product by x, in the dtype of x."""
        ctx.save_for_backward(x, kappa, lambd)
        ctx.product, ctx.paper, ctx.backend = product, paper, backend
        kernel = find_kernel(backend, x, kappa, lambd)
        if kernel is not None:
            return kernel.forward(product)
        wide = _widen(x)
        eta = apa_forward(wide, _widen(kappa, wide), _widen(lambd, wide))
        if product:
            eta = eta.mul_(wide)
        return eta.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        """Return the gradients, differentiable if autograd asks for it."""
        x, kappa, lambd = ctx.saved_tensors
        kernel = None
        if not torch.is_grad_enabled():
            kernel = find_kernel(ctx.backend, x, kappa, lambd)
        if kernel is not None:
            return (*kernel.backward(grad, ctx.product, ctx.paper), None, None,
                    None)
        wide = _widen(x)
        wide_kappa, wide_lambd = _widen(kappa, wide), _widen(lambd, wide)
        eta, g, d_lambd = apa_gradients(wide, wide_kappa, wide_lambd,
                                        ctx.paper)
        grad = grad.to(wide.dtype)
        grad_x = grad_kappa = grad_lambd = None
        outer = grad * wide if ctx.product else grad
        if ctx.needs_input_grad[1]:
            grad_kappa = _reduce(outer * wide * g, kappa)
        if ctx.needs_input_grad[2]:
            grad_lambd = _reduce(outer * d_lambd, lambd)
        if ctx.needs_input_grad[0]:
            grad_x = outer * g * wide_kappa
            if ctx.product:
                grad_x.addcmul_(grad, eta)
            grad_x = grad_x.to(x.dtype)
        return grad_x, grad_kappa, grad_lambd, None, None, None


def _widen(tensor: Tensor, like: Optional[Tensor] = None) -> Tensor:
    """Return the tensor in the dtype to compute in: float32 or float64."""
    if like is not None:
        return tensor.to(like.dtype)
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _reduce(grad: Tensor, parameter: Tensor) -> Tensor:
    """Sum a gradient over the axes along which its parameter was expanded."""
    return grad.sum_to_size(parameter.shape).to(parameter.dtype)
