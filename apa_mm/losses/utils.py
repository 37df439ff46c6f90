"""From a loss per sample to the loss that is returned."""
from typing import Optional, Union

import torch
from torch import Tensor

from apa_mm.utils.checks import check_choice

__all__ = ['REDUCTIONS', 'weight_reduce_loss']

REDUCTIONS = ('none', 'mean', 'sum')


def weight_reduce_loss(
        loss: Tensor,
        weight: Optional[Tensor] = None,
        reduction: str = 'mean',
        avg_factor: Optional[Union[float, Tensor]] = None) -> Tensor:
    """Weight the losses of samples and reduce them.

    Args:
        loss (Tensor): Loss per sample (N,).
        weight (Tensor, optional): Weight per sample (N,).
        reduction (str): 'none', 'mean' or 'sum'.
        avg_factor (float | Tensor, optional): Divisor of the sum for 'mean';
            N if not given. Ignored by 'none': mmdet's box heads always pass
            one.

    Returns:
        Tensor: (N,) for 'none', otherwise 0-d. Without samples, or with an
        ``avg_factor`` of 0, the mean is finite.

    Raises:
        ValueError: If ``weight`` does not fit, ``reduction`` is unknown, or
            'sum' comes with an ``avg_factor``.
    """
    check_choice('reduction', reduction, REDUCTIONS)
    if weight is not None:
        if weight.shape != loss.shape:
            raise ValueError(
                f'weight must have one entry per sample, {tuple(loss.shape)}, '
                f'but got {tuple(weight.shape)}')
        loss = loss * weight
    if reduction == 'none':
        return loss
    if reduction == 'sum':
        if avg_factor is not None:
            raise ValueError("avg_factor goes with reduction 'mean', but got "
                             "'sum'; leave one of them out")
        return loss.sum()
    if avg_factor is None:
        avg_factor = len(loss)
    tiny = torch.finfo(torch.float32).eps
    if isinstance(avg_factor, Tensor):
        return loss.sum() / avg_factor.clamp(min=tiny)
    return loss.sum() / max(avg_factor, tiny)
