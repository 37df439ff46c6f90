"""Forward and backward formulas of APA, AGLU and the Gumbel gate.

With ``t = log(lambda) - kappa * x`` and ``s = exp(t)``::

    eta           = (1 + s)^(-1 / lambda) = exp(-softplus(t) / lambda)
    d eta / d x   = kappa * g,  g = eta * sigmoid(t) / lambda
    d eta / d kappa  = x * g
    d eta / d lambda = eta * (log(1 + s) - s / (1 + s)) / lambda^2

Everything is evaluated in log space, so that no term overflows before it is
multiplied by one that vanishes. The Gumbel gate is the limit of lambda to 0,
``exp(-exp(u))`` and ``g = exp(u - exp(u))`` with ``u = -kappa * x``.
"""
import math
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['GATE', 'GUMBEL', 'UNIT', 'activation', 'activation_gradients']

#: Kinds of activation: eta(x), x * eta(x), exp(-exp(-kappa * x)).
GATE, UNIT, GUMBEL = range(3)

# Below this s the plain form log(1 + s) - s / (1 + s) cancels: its relative
# error is about 2 * eps / s, that is 2.4e-6 at 0.05 in float32. The series
# s^2/2 - 2s^3/3 + 3s^4/4 - ... is cut where its tail falls under the epsilon.
SERIES_BOUND = 0.05
SERIES_LOG_BOUND = math.log(SERIES_BOUND)
SERIES_TERMS = {torch.float32: 6, torch.float64: 12}

# exp(-exp(20)) is 0 in every dtype, and no derivative meets 0 * inf.
GUMBEL_LOG_BOUND = 20.0


def activation(x: Tensor, kappa: Tensor, lambd: Optional[Tensor],
               kind: int) -> Tensor:
    """Return the activation of ``x``.

    Args:
        x (Tensor): Input, any shape, float32 or float64.
        kappa (Tensor): Broadcastable to ``x``, its dtype.
        lambd (Tensor, optional): Positive, like ``kappa``; the Gumbel gate
            does not use it.
        kind (int): GATE, UNIT or GUMBEL.

    Returns:
        Tensor: Shape and memory format of ``x``.
    """
    if kind == GUMBEL:
        return torch.exp(-torch.exp(_gumbel_exponent(x, kappa)))
    t = x * -kappa + lambd.log()
    eta = torch.exp(-_softplus(t) / lambd)
    return x * eta if kind == UNIT else eta


def activation_gradients(
        x: Tensor,
        grad: Tensor,
        kappa: Tensor,
        lambd: Optional[Tensor],
        kind: int,
        paper: bool = False) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    """Return the gradients of x, kappa and lambda, element by element.

    Args:
        x (Tensor): As in :func:`activation`.
        grad (Tensor): Gradient of the result, shape and dtype of ``x``.
        kappa (Tensor): As in :func:`activation`.
        lambd (Tensor, optional): As in :func:`activation`.
        kind (int): As in :func:`activation`.
        paper (bool): Eq. 8 of the paper in place of the true derivative for
            lambda. Eq. 8 holds the exponent ``-1 / lambda`` constant; it has
            the opposite sign and grows like ``1 / lambda``.

    Returns:
        tuple[Tensor, Tensor, Tensor | None]: Shape of ``x`` each; None for a
        Gumbel gate's lambda.
    """
    if kind == GUMBEL:
        exponent = _gumbel_exponent(x, kappa)
        slope = grad * torch.exp(exponent - torch.exp(exponent))
        return slope * kappa, slope * x, None
    eta, g, d_lambd = _eta_gradients(x, kappa, lambd, paper)
    outer = grad * x if kind == UNIT else grad
    grad_x = outer * g * kappa
    if kind == UNIT:
        grad_x = grad_x + grad * eta
    return grad_x, outer * x * g, outer * d_lambd


def _eta_gradients(x: Tensor, kappa: Tensor, lambd: Tensor,
                   paper: bool) -> Tuple[Tensor, Tensor, Tensor]:
    """Return eta, g and ``d eta / d lambda`` (see the module's header)."""
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


def _gumbel_exponent(x: Tensor, kappa: Tensor) -> Tensor:
    return (x * -kappa).clamp(max=GUMBEL_LOG_BOUND)


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
