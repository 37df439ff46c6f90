"""The Gumbel probability of the Gumbel Optimized Loss."""
from typing import Optional, Tuple, Union

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from apa_mm.kernels.activation import activate
from apa_mm.kernels.formulas import GUMBEL

from .apa import as_parameter, check_floating

#: Range of the scores in the authors' detection code.
GUMBEL_CLAMP = (-10.0, 10.0)
# e^80 = 5.5e34 and its reciprocal are the round powers that float32 holds.
LARGEST_SCORE = 80.0


def gumbel(x: Tensor, *, kappa: Union[Tensor, float] = 1.0,
           backend: Optional[str] = None) -> Tensor:
    r"""Compute the Gumbel probability.

    .. math:: p(x) = e^{-e^{-\kappa x}}

    "Long-tailed Instance Segmentation using Gumbel Optimized Loss" (ECCV
    2022). The limit of :func:`apa_mm.functional.apa` as ``lambd`` goes to 0,
    with its arguments, result and errors. Value and gradients are finite for
    every finite ``x``.

    Example:
        >>> import torch
        >>> gumbel(torch.tensor([0.0, 2.0]))
        tensor([0.3679, 0.8734])
    """
    if has_torch_function((x, kappa)):
        return handle_torch_function(
            gumbel, (x, kappa), x, kappa=kappa, backend=backend)
    check_floating('x', x)
    kappa = as_parameter('kappa', kappa, x)
    return activate(x, kappa, kappa.detach(), GUMBEL, backend=backend)


def check_clamp(clamp: Tuple[float, float]) -> Tuple[float, float]:
    """Return two floats; ValueError unless they ascend in [-80, 80]."""
    try:
        low, high = (float(bound) for bound in clamp)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not -LARGEST_SCORE <= low < high <= LARGEST_SCORE:
        raise ValueError(f'clamp must be two numbers (low, high) with -80 <= '
                         f'low < high <= 80, but got {clamp!r}')
    return low, high
