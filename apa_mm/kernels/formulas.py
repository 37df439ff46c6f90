"""APA, AGLU and the Gumbel gate as plain torch operations.

With ``t = log(lambda) - kappa * x``, ``s = exp(t)`` and ``w = s / lambda``::

    log(eta) = -softplus(t) / lambda = -w * (1 - s / 2 + s^2 / 3 - ...)

autograd differentiates these in every mode and order. In the first form the
gradient for lambda, ``(softplus(t) - sigmoid(t)) / lambda^2``, cancels for
small s; with gradients the series is used there. The Gumbel gate is the limit
of lambda to 0, ``exp(-exp(u))`` with ``u = -kappa * x``.
"""
import math
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

#: Kinds of activation: eta(x), x * eta(x), exp(-exp(-kappa * x)).
GATE, UNIT, GUMBEL = range(3)

# Where s is smaller the series is used. At the bound the other form is off by
# about 2 * eps / s in the gradient for lambda, 6e-6 in float32, and what the
# series leaves out is smaller than eps in the gradient too.
SERIES_LOG_BOUND = math.log(0.02)
SERIES_TERMS = {torch.float32: 5, torch.float64: 10}

# exp(-exp(20)) is 0 in every dtype, and no derivative meets 0 * inf.
GUMBEL_LOG_BOUND = 20.0
# Stands for infinity in the exponent: infinity times 0 is NaN, and in the
# gradient of kappa it is squared.
LARGEST = 1e15


def activation(x: Tensor,
               kappa: Tensor,
               lambd: Optional[Tensor],
               kind: int,
               paper: bool = False) -> Tensor:
    """Return GATE, UNIT or GUMBEL of ``x``; the last needs no ``lambd``.

    ``paper`` asks for Eq. 8 in place of the true derivative for lambda: the
    exponent ``-1 / lambda`` is held constant. Under forward-mode
    differentiation it raises RuntimeError.
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
