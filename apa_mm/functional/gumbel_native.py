"""The compiled CPU form of the GOL loss, ``csrc/gol_cpu.cpp``.

One pass makes the losses, the gradient and the draws. The draws are a hash of
a seed from torch's generator, the row and the column, so they are the same for
every number of threads.
"""
from ctypes import c_float, c_int64, c_uint64
from typing import Optional, Tuple

import torch
from torch import Tensor

from . import native
from .backend import choose_backend

__all__ = ['gol_forward', 'usable']


def usable(cls_score: Tensor, activation: str) -> bool:
    """Return whether these scores can be walked: float32, contiguous, CPU."""
    return (activation == 'gumbel' and cls_score.dtype == torch.float32
            and cls_score.is_contiguous() and cls_score.numel() > 0
            and choose_backend(cls_score) == 'native')


def gol_forward(cls_score: Tensor, labels: Tensor, positives: Tensor,
                ratios: Optional[Tensor], rare: Optional[Tensor],
                clamp: Tuple[float, float]) -> Tuple[Tensor, Tensor]:
    """Return the losses (N,) and the gradient (N, C) of the scores.

    Args:
        cls_score (Tensor): Scores, float32, (N, C).
        labels (Tensor): Class of a foreground row, int64, (N, 1).
        positives (Tensor): True on foreground rows, bool, (N, 1).
        ratios (Tensor, optional): Probability to keep the negative of a rare
            class, float32, (N, 1).
        rare (Tensor, optional): True for rare classes, bool, (C,).
        clamp (tuple[float, float]): Range of the scores.

    Raises:
        RuntimeError: If a label is out of range.
    """
    rows, columns = cls_score.shape
    scores = cls_score.detach()
    scores.gather(1, labels)  # raises for labels out of range
    common, seed = scores.new_ones(columns), 0
    if rare is None or ratios is None:
        ratios = scores.new_zeros(rows)
    else:
        common -= rare.to(common.dtype)
        seed = int(torch.randint(2**63 - 1, ()))
    targets = torch.where(positives, labels, -1)
    grad, losses = torch.empty_like(scores), scores.new_empty(rows)
    native.library().gol_forward(
        *map(native.pointer, (scores, grad, losses, targets.contiguous(),
                              common, ratios.contiguous())), c_uint64(seed),
        c_int64(rows), c_int64(columns), c_float(clamp[0]), c_float(clamp[1]),
        native.threads(scores))
    return losses, grad
