"""The Gumbel probability and its binary cross entropy.

"Long-tailed Instance Segmentation using Gumbel Optimized Loss" (ECCV 2022).
"""
from typing import Optional, Tuple, Union

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from apa_mm.kernels.activation import activate
from apa_mm.kernels.formulas import GUMBEL, widen
from apa_mm.kernels.gol import LOSSES
from apa_mm.utils.checks import check_choice

from .apa import as_parameter, check_floating

#: Range of the scores in the authors' detection code; their earlier GOL code
#: has (-4, 10).
GUMBEL_CLAMP = (-10.0, 10.0)
# e^80 = 5.5e34 and its reciprocal are the round powers that float32 holds.
LARGEST_SCORE = 80.0


def gumbel(x: Tensor,
           *,
           kappa: Union[Tensor, float] = 1.0,
           backend: Optional[str] = None) -> Tensor:
    r"""Compute the Gumbel probability.

    .. math:: p(x) = e^{-e^{-\kappa x}}

    The limit of :func:`apa_mm.functional.apa` as ``lambd`` goes to 0;
    arguments, result and errors are those of it. Value and gradients are
    finite for every finite ``x``.

    Example:
        >>> gumbel(torch.tensor([0.0, 2.0]))
        tensor([0.3679, 0.8734])
    """
    if has_torch_function((x, kappa)):
        return handle_torch_function(
            gumbel, (x, kappa), x, kappa=kappa, backend=backend)
    check_floating('x', x)
    kappa = as_parameter('kappa', kappa, x)
    return activate(x, kappa, kappa.detach(), GUMBEL, backend=backend)


def gumbel_bce_with_logits(
        logits: Tensor,
        target: Tensor,
        *,
        clamp: Tuple[float, float] = GUMBEL_CLAMP,
        reduction: str = 'mean') -> Tensor:
    r"""Binary cross entropy of ``gumbel(logits)`` in closed form.

    .. math:: L = t e^{-s} - (1 - t) \ln(1 - e^{-e^{-s}})

    where ``s`` is ``logits`` clamped; the gradient is 0 outside the range.

    Args:
        logits (Tensor): Any shape and floating dtype; half types are computed
            in float32.
        target (Tensor): Probabilities in [0, 1], shape of ``logits``.
        clamp (tuple[float, float]): Range of the logits, within [-80, 80].
        reduction (str): 'none', 'mean' over all elements or 'sum'.

    Returns:
        Tensor: Shape of ``logits`` for 'none', else 0-d; float32, or float64
        for float64 logits.

    Raises:
        TypeError: If ``logits`` or ``target`` is not a floating tensor.
        ValueError: If the shapes differ, or ``clamp`` or ``reduction`` is
            not as above.

    Example:
        >>> gumbel_bce_with_logits(torch.zeros(2), torch.ones(2))
        tensor(1.)
    """
    check_floating('logits', logits)
    check_floating('target', target)
    if target.shape != logits.shape:
        raise ValueError(
            f'target must have the shape of logits, {tuple(logits.shape)}, '
            f'but got {tuple(target.shape)}; turn class indices into one row '
            'per sample with torch.nn.functional.one_hot(...).float()')
    check_choice('reduction', reduction, ('none', 'mean', 'sum'))
    low, high = check_clamp(clamp)
    score = widen(logits).clamp(low, high)
    negative, positive = (function(score) for function in LOSSES['gumbel'])
    loss = torch.lerp(negative, positive, target.to(score.dtype))
    return loss if reduction == 'none' else getattr(loss, reduction)()


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
