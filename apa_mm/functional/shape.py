r"""What kappa and lambda say about the shape of a gate or a unit at 0.

With :math:`\eta(x) = (\lambda e^{-\kappa x} + 1)^{-1/\lambda}` (Eq. 5),

.. math::
    \eta(0) = (1 + \lambda)^{-1/\lambda}, \qquad
    \eta'(0) = \kappa (1 + \lambda)^{-1/\lambda - 1},

and a unit :math:`x \eta(x)` (Eq. 6) has the slope :math:`\eta(0)` at 0.
"""
import torch
from torch import Tensor

__all__ = ['eta_at_zero', 'gate_slope_at_zero']


def eta_at_zero(lambd: Tensor) -> Tensor:
    """Return the gate's value at 0, which is the unit's slope there.

    Args:
        lambd (Tensor): Positive, any shape.

    Returns:
        Tensor: In (1/e, 1), float64.

    Example:
        >>> eta_at_zero(torch.tensor([1.0, 0.5])).tolist()
        [0.5, 0.4444444444444444]
    """
    lambd = lambd.double()
    return torch.exp(-torch.log1p(lambd) / lambd)


def gate_slope_at_zero(kappa: Tensor, lambd: Tensor) -> Tensor:
    """Return the gate's slope at 0.

    Args:
        kappa (Tensor): Any sign.
        lambd (Tensor): Positive, of the same shape.

    Returns:
        Tensor: float64; 1/4 for the sigmoid (kappa = lambda = 1).

    Example:
        >>> one = torch.ones(())
        >>> float(gate_slope_at_zero(2 * one, one))
        0.5
    """
    return kappa.double() * eta_at_zero(lambd) / (1 + lambd.double())
