"""From a loss per sample to the loss that is returned."""
from typing import Optional, Union

import torch
from torch import Tensor

from apa_mm.utils.checks import check_choice

REDUCTIONS = ('none', 'mean', 'sum')


def weight_reduce_loss(loss: Tensor, weight: Optional[Tensor] = None,
                       reduction: str = 'mean',
                       avg_factor: Optional[Union[float, Tensor]] = None
                       ) -> Tensor:
    """Weight losses (N,) of samples by ``weight`` (N,) and reduce them.

    ``avg_factor`` divides the sum for 'mean', in place of N; 'none' ignores
    it, since mmdet's box heads always pass one. A mean of nothing is finite.

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
