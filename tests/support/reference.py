"""Slow forms in float64, written from the paper's formulas for the tests.

They share no code with the package: plain loops over Python floats.
"""
import math

import torch
from torch import Tensor

#: Relative tolerance per dtype against a float64 oracle: a few roundings of
#: the output dtype, since half types are computed in float32 inside.
TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}


def eta(z: float, kappa: float, lambd: float) -> float:
    """Return Eq. 5 for one number, without overflow."""
    exponent = math.log(lambd) - kappa * z
    log1p = exponent if exponent > 700 else math.log1p(math.exp(exponent))
    return math.exp(-log1p / lambd)


def eta_tensor(x: Tensor, kappa: float, lambd: float) -> Tensor:
    """Return Eq. 5 element by element in float64."""
    values = [eta(z, kappa, lambd) for z in x.double().flatten().tolist()]
    return torch.tensor(values, dtype=torch.float64).reshape(x.shape)


def aglu_lambda_gradient(z: float, kappa: float, lambd: float) -> float:
    """Return the true derivative of z * eta(z) for lambda."""
    u = lambd * math.exp(-kappa * z)
    # The series of log(1 + u) - u / (1 + u) where the difference cancels.
    if u < 1e-3:
        core = u**2 / 2 - 2 * u**3 / 3 + 3 * u**4 / 4 - 4 * u**5 / 5
    else:
        core = math.log1p(u) - u / (1 + u)
    return z * eta(z, kappa, lambd) / lambd**2 * core
