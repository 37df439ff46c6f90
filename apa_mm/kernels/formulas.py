"""APA, AGLU and the Gumbel gate as plain torch operations.

With ``t = log(lambda) - kappa * x``, ``s = exp(t)`` and ``w = s / lambda``::

    log(eta) = -softplus(t) / lambda = -w * (1 - s / 2 + s^2 / 3 - ...)

autograd differentiates these in every mode and order. In the first form the
gradient for lambda is ``(softplus(t) - sigmoid(t)) / lambda^2``, which cancels
for small s; the series is used there, where it matters, that is with
gradients. The Gumbel gate is the limit of lambda to 0, ``exp(-exp(u))`` with
``u = -kappa * x``.
"""
import math
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['GATE', 'GUMBEL', 'UNIT', 'activation', 'widen']

#: Kinds of activation: eta(x), x * eta(x), exp(-exp(-kappa * x)).
GATE, UNIT, GUMBEL = range(3)

# Where s is smaller the series is used. At the bound the other form is off by
# about 2 * eps / s in the gradient for lambda, 6e-6 in float32, and what the
# series leaves out is smaller than eps in the gradient too.
SERIES_LOG_BOUND = math.log(0.02)
SERIES_TERMS = {torch.float32: 5, torch.float64: 10}

# exp(-exp(20)) is 0 in every dtype, and no derivative meets 0 * inf.
GUMBEL_LOG_BOUND = 20.0
# Stands for infinity in the exponent, so that kappa = 0 does not make NaN.
LARGEST = 1e30


def activation(x: Tensor,
               kappa: Tensor,
               lambd: Optional[Tensor],
               kind: int,
               paper: bool = False) -> Tensor:
    """Return the activation of ``x``.

    Args:
        x (Tensor): Any shape and floating dtype; half types are computed in
            float32.
        kappa (Tensor): Broadcastable to ``x``.
        lambd (Tensor, optional): Positive, like ``kappa``; the Gumbel gate
            does not use it.
        kind (int): GATE, UNIT or GUMBEL.
        paper (bool): Eq. 8 of the paper in place of the true derivative for
            lambda. Eq. 8 holds the exponent ``-1 / lambda`` constant; it has
            the opposite sign and grows like ``1 / lambda``.

    Returns:
        Tensor: Shape, dtype and memory format of ``x``.

    Raises:
        RuntimeError: With ``paper`` under forward-mode differentiation.
    """
    wide = widen(x)
    finite = wide.clamp(-LARGEST, LARGEST)
    if not x.dim():  # one value is (1,), and would make the result so
        kappa, lambd = (v if v is None else v.reshape(())
                        for v in (kappa, lambd))
    u = finite * -kappa.to(wide.dtype)
    if kind == GUMBEL:
        return torch.exp(-u.clamp(max=GUMBEL_LOG_BOUND).exp()).to(x.dtype)
    eta = _log_eta(u, lambd.to(wide.dtype), paper).exp()
    if kind == UNIT:  # infinity times 0 would be NaN
        eta = torch.where(eta == 0, finite, wide) * eta
    return eta.to(x.dtype)


def widen(tensor: Tensor) -> Tensor:
    """Return the tensor in the dtype to compute in: float32 or float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _log_eta(u: Tensor, lambd: Tensor, paper: bool) -> Tensor:
    log_lambd = lambd.log()
    t = u + log_lambd
    # torch's default threshold of 20 is 2e-9 off, too much for float64; its
    # logsigmoid would lose the channels_last format.
    softplus = F.softplus(t, threshold=40)
    if paper:
        return -softplus / _constant(lambd)
    plain = -softplus / lambd
    if not torch.is_grad_enabled() or torch.jit.is_tracing():
        return plain
    # The form that is not taken stays finite, so that its gradient is 0.
    w = torch.minimum(u, (SERIES_LOG_BOUND - log_lambd).detach()).exp()
    return torch.where(t > SERIES_LOG_BOUND, plain, -w * _series(w * lambd))


def _series(s: Tensor) -> Tensor:
    """Return ``log(1 + s) / s`` for small s."""
    terms = SERIES_TERMS[s.dtype]
    result = 1 / terms - s * (1 / (terms + 1))
    for k in range(terms - 1, 0, -1):
        result = 1 / k - s * result
    return result


def _constant(lambd: Tensor) -> Tensor:
    """Return lambda without its derivative."""
    if (not torch.compiler.is_compiling()
            and torch.autograd.forward_ad._current_level >= 0):
        raise RuntimeError(
            "lambda_grad='paper' is a rule for backward passes and has no "
            "forward-mode derivative (jvp, jacfwd); use lambda_grad='exact'")
    return lambd.detach()
