"""The Gumbel Optimized Loss. Shapes: N RoIs, C classes."""
import math
from typing import Optional, Tuple, Union

import torch
from torch import Tensor

from apa_mm.kernels.gol import GOLSettings, gol
from apa_mm.utils.checks import check_choice

from .apa import check_floating
from .gumbel import GUMBEL_CLAMP, check_clamp

#: Range of the scores of each activation, unless the caller names one.
DEFAULT_CLAMPS = {'gumbel': GUMBEL_CLAMP, 'sigmoid': (-math.inf, math.inf)}
GOL_ACTIVATIONS = tuple(DEFAULT_CLAMPS)


def gol_loss(cls_score: Tensor, labels: Tensor, *,
             rare: Optional[Tensor] = None,
             ratio: Union[Tensor, float, None] = None,
             activation: str = 'gumbel',
             clamp: Optional[Tuple[float, float]] = None,
             ignore_index: int = -100) -> Tensor:
    r"""Gumbel Optimized Loss of every RoI.

    .. math:: L_i = \sum_j w_{ij} \, BCE(p(s_{ij}), t_{ij})

    ``w`` is 1 but for negatives of rare classes: those are 0 on foreground
    RoIs, and on background RoIs 1 with probability ``ratio``, drawn anew for
    each element. The backward pass keeps one tensor of the size of
    ``cls_score``. Second derivatives raise RuntimeError.

    Args:
        cls_score (Tensor): Scores without a background column, (N, C), any
            floating dtype; half types are computed in float32.
        labels (Tensor): int64 in [0, C], C for background, (N,).
        rare (Tensor, optional): True for rare classes, bool, (C,).
        ratio (Tensor | float, optional): In [0, 1]; None is that of
            :func:`rare_ratio`.
        activation (str): 'gumbel', or 'sigmoid' for ordinary BCE.
        clamp (tuple[float, float], optional): Range of the scores; outside
            of it the gradient is zero. None: (-10, 10) for 'gumbel', no limit
            for 'sigmoid'.
        ignore_index (int): RoIs with this label have loss and gradient 0.

    Returns:
        Tensor: Loss per RoI, (N,), float32, or float64 for float64 scores.

    Raises:
        TypeError: If ``cls_score`` is not a floating or ``labels`` not an
            int64 tensor, or ``rare`` is not boolean.
        ValueError: If a shape, ``activation`` or ``clamp`` is not as above.

    Example:
        >>> scores = torch.zeros(2, 3)
        >>> labels = torch.tensor([0, 3])  # class 0, background
        >>> gol_loss(scores, labels)
        tensor([1.9174, 1.3760])
        >>> rare = torch.tensor([False, False, True])
        >>> gol_loss(scores, labels, rare=rare)
        tensor([1.4587, 0.9174])
    """
    _check_gol(cls_score, labels, rare)
    check_choice('activation', activation, GOL_ACTIVATIONS)
    clamp = DEFAULT_CLAMPS[activation] if clamp is None else check_clamp(clamp)
    ignored = labels == ignore_index
    background = labels == cls_score.size(1)
    positives = ~(ignored | background)
    ratios = None
    if rare is not None:
        if ratio is None:
            ratio = rare_ratio(count_foreground(labels, rare, ignore_index))
        elif not isinstance(ratio, Tensor):
            if not 0 <= ratio <= 1:
                raise ValueError(f'ratio must be in [0, 1], but got {ratio}')
            ratio = torch.full((), ratio, device=background.device)
        ratios = torch.where(background, ratio.float(), 0.0).unsqueeze(1)
    losses = gol(cls_score, torch.where(positives, labels, 0).unsqueeze(1),
                 positives.unsqueeze(1), ratios,
                 GOLSettings(activation, clamp, rare))
    return losses.masked_fill(ignored, 0)


def count_foreground(labels: Tensor, rare: Tensor,
                     ignore_index: int = -100) -> Tensor:
    """Count the foreground RoIs of rare classes, and all: int64, (2,).

    Arguments are those of :func:`gol_loss`. Counts of batches may be added up
    before they go into :func:`rare_ratio`.
    """
    foreground = (labels != len(rare)) & (labels != ignore_index)
    is_rare = foreground & rare[torch.where(foreground, labels, 0)]
    return torch.stack([is_rare.sum(), foreground.sum()])


def rare_ratio(counts: Tensor) -> Tensor:
    """Return the fraction of foreground RoIs whose class is rare.

    Float32, 0-d; 1 without foreground, where the authors' code drops nothing.
    """
    rare, total = counts.unbind()
    return torch.where(total > 0, rare / total.clamp(min=1), 1.0)


def _check_gol(cls_score: Tensor, labels: Tensor,
               rare: Optional[Tensor]) -> None:
    check_floating('cls_score', cls_score)
    if labels.dtype != torch.int64:
        raise TypeError(f'labels must be class indices of dtype torch.int64, '
                        f'but got {labels.dtype}; convert them with '
                        'labels.long()')
    if cls_score.dim() != 2 or labels.shape != cls_score.shape[:1]:
        raise ValueError(
            'cls_score must have the shape (N, C) and labels (N,), but got '
            f'{tuple(cls_score.shape)} and {tuple(labels.shape)}')
    if rare is None:
        return
    if rare.dtype != torch.bool:
        raise TypeError(f'rare must be a boolean mask, but got {rare.dtype}; '
                        'make it by comparing frequencies with a threshold')
    if rare.shape != cls_score.shape[1:]:
        raise ValueError(
            'rare must have one entry for each column of cls_score, '
            f'{cls_score.size(1)}, but got {tuple(rare.shape)}')
