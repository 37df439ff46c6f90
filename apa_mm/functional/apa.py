"""The Adaptive Parametric Activation and the unit built from it."""
from typing import Optional, Union

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from apa_mm.kernels.activation import activate
from apa_mm.kernels.formulas import GATE, UNIT
from apa_mm.kernels.lower_bound import bounded

LAMBDA_GRADS = ('exact', 'paper')


def apa(x: Tensor, *, kappa: Union[Tensor, float],
        lambd: Union[Tensor, float], backend: Optional[str] = None) -> Tensor:
    r"""Compute the Adaptive Parametric Activation.

    .. math:: \eta(x) = (\lambda e^{-\kappa x} + 1)^{-1/\lambda}

    Eq. 5 of "Adaptive Parametric Activation" (ECCV 2024): the sigmoid of
    ``kappa * x`` at ``lambd=1``, :func:`gumbel` as ``lambd`` goes to 0. All
    gradients are the true derivatives and can be differentiated again.

    Args:
        x (Tensor): Any shape and floating dtype; half types are computed in
            float32. Values in [-1e4, 1e4] are tested.
        kappa (Tensor | float): Slope, any sign, broadcastable to ``x``.
        lambd (Tensor | float): Asymmetry in [1e-8, 1e4], likewise.
        backend (str, optional): One of :mod:`apa_mm.kernels.activation`.

    Returns:
        Tensor: Values in [0, 1], shape, dtype and memory format of ``x``.

    Raises:
        TypeError: If ``x`` is not a floating tensor.
        ValueError: If the number ``lambd`` is not positive, or a parameter
            does not broadcast to ``x``.

    Example:
        >>> apa(torch.zeros(2), kappa=1.0, lambd=1.0)
        tensor([0.5000, 0.5000])
    """
    if has_torch_function((x, kappa, lambd)):
        return handle_torch_function(
            apa, (x, kappa, lambd), x, kappa=kappa, lambd=lambd,
            backend=backend)
    return _apply(x, kappa, lambd, GATE, False, backend)


def aglu(x: Tensor, *, kappa: Union[Tensor, float],
         lambd: Union[Tensor, float], lambda_grad: str = 'exact',
         backend: Optional[str] = None) -> Tensor:
    r"""Compute the Adaptive Generalised Linear Unit, ``x * apa(x)``.

    Eq. 6 of the paper. SiLU at ``kappa=lambd=1``, the sigmoid form of GELU at
    ``kappa=1.702, lambd=1``, ReLU as ``kappa`` grows, the identity as
    ``lambd`` grows. Other arguments, result and errors are those of
    :func:`apa`. ``lambda_grad='exact'`` is the true derivative. 'paper' is
    Eq. 8 as printed, only to repeat runs of the authors' classification code:
    it lacks a term, has the opposite sign for every ``x != 0`` and grows like
    ``1 / lambd``.

    Example:
        >>> aglu(torch.tensor([1.0]), kappa=1.0, lambd=1.0)
        tensor([0.7311])
    """
    if lambda_grad not in LAMBDA_GRADS:
        raise ValueError(f'lambda_grad must be one of {LAMBDA_GRADS}, but got '
                         f'{lambda_grad!r}')
    if has_torch_function((x, kappa, lambd)):
        return handle_torch_function(
            aglu, (x, kappa, lambd), x, kappa=kappa, lambd=lambd,
            lambda_grad=lambda_grad, backend=backend)
    return _apply(x, kappa, lambd, UNIT, lambda_grad == 'paper', backend)


def lower_bound(value: Tensor, bound: float) -> Tensor:
    """Return ``max(value, bound)`` with a gradient that can lead back up.

    ``torch.clamp`` would keep a parameter below the bound there for ever.
    Here the gradient passes at and above the bound, and below it only if it
    would raise the value. This rule has no second derivative:
    ``create_graph=True`` raises RuntimeError if a value is below. For
    ``torch.func`` and in forward mode the derivative is 1 everywhere. Traced
    and exported graphs hold ``torch.clamp``.

    Example:
        >>> lower_bound(torch.tensor([-1.0, 2.0]), 0.5)
        tensor([0.5000, 2.0000])
    """
    if has_torch_function((value, )):
        return handle_torch_function(lower_bound, (value, ), value, bound)
    return bounded(value, bound)


def eta_at_zero(lambd: Tensor) -> Tensor:
    r"""Return :math:`\eta(0) = (1 + \lambda)^{-1/\lambda}`, in (1/e, 1).

    The unit's slope at 0 for every kappa, float64.
    """
    lambd = lambd.double()
    return torch.exp(-torch.log1p(lambd) / lambd)


def gate_slope_at_zero(kappa: Tensor, lambd: Tensor) -> Tensor:
    r"""Return :math:`\eta'(0) = \kappa (1 + \lambda)^{-1/\lambda - 1}`.

    The gate's slope at 0, float64; 1/4 for the sigmoid.
    """
    return kappa.double() * eta_at_zero(lambd) / (1 + lambd.double())


def _apply(x: Tensor, kappa: Union[Tensor, float], lambd: Union[Tensor, float],
           kind: int, paper: bool, backend: Optional[str]) -> Tensor:
    check_floating('x', x)
    if not isinstance(lambd, Tensor) and not lambd > 0:
        raise ValueError(f'lambd must be positive, but got {lambd}')
    return activate(x, as_parameter('kappa', kappa, x),
                    as_parameter('lambd', lambd, x), kind, paper, backend)


def check_floating(name: str, x: Tensor) -> None:
    """Raise TypeError unless the tensor is a floating one."""
    if not torch.is_floating_point(x):
        raise TypeError(f'{name} must be a floating point tensor, but got '
                        f'dtype {x.dtype}; convert it with {name}.float()')


def as_parameter(name: str, value: Union[Tensor, float], x: Tensor) -> Tensor:
    """Return the parameter as a tensor that broadcasts to ``x``'s shape."""
    if not isinstance(value, Tensor):
        dtype = x.dtype if x.dtype == torch.float64 else torch.float32
        return torch.full((), value, dtype=dtype, device=x.device)
    if torch.jit.is_tracing() or value.dim() == 0 or value.shape == (1, ):
        return value
    if value.numel() == 1:
        return value.reshape(())
    offset = x.dim() - value.dim()
    if offset < 0 or any(size != 1 and size != x.shape[offset + i]
                         for i, size in enumerate(value.shape)):
        raise ValueError(
            f'{name} of shape {tuple(value.shape)} does not broadcast to x of '
            f'shape {tuple(x.shape)}; reshape it to one value or to one value '
            'per channel, such as (C, 1, 1)')
    return value
